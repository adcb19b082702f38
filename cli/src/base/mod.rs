//! What every other module may use, and which names none of them: exit codes, output, units, tasks,
//! signals, patience, logging, random bytes and the time.

pub(crate) mod descriptors;
pub(crate) mod duration;
pub(crate) mod exit;
pub(crate) mod lasting;
pub(crate) mod layout;
pub(crate) mod logging;
pub(crate) mod output;
pub(crate) mod patience;
pub(crate) mod samples;
pub(crate) mod screen;
pub(crate) mod signals;
pub(crate) mod system;
pub(crate) mod tally;
pub(crate) mod task;
pub(crate) mod units;
