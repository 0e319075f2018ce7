//! The table as a whole, over stores in memory and on disk.

mod basics;
mod crashes;
mod faulty;
mod golden;
mod harness;
mod histories;
mod pairs;
mod reshaped;
mod samples;
mod writers;
