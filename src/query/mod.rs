//! ⑦ SQL over the lake.
