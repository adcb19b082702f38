//! What every other module may use, and what names none of them: tasks.

pub(crate) mod task;
