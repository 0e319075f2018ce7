//! The names of all metrics, and how they are exported.
