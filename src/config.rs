//! The configuration file, `binlake.toml`: composed of the rooms' own parts.
