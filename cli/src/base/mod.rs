//! What every other module may use, and what names none of them: tasks, random bytes, the time.

pub(crate) mod system;
pub(crate) mod task;
pub(crate) mod units;
