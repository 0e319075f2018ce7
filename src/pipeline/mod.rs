//! Running it: the capture loop, the apply loop, backfill, supervision.
