//! The table as a whole, over stores in memory and on disk.

mod basics;
mod crashes;
mod faulty;
mod going_back;
mod golden;
mod groups;
mod harness;
mod histories;
mod reshaped;
mod samples;
mod writers;
