//! ④ Rows up to a cut become what a table must hold.
