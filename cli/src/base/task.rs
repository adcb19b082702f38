//! Tasks in the background. It decides that a task ends with the value that owns it.

use std::future::Future;

use tokio::task::{JoinError, JoinHandle};

/// A task that ends with its owner.
#[derive(Debug)]
pub(crate) struct Background<T>(JoinHandle<T>);

impl<T: 'static> Background<T> {
    pub(crate) fn spawn(task: impl Future<Output = T> + Send + 'static) -> Self
    where
        T: Send,
    {
        Self(tokio::spawn(task))
    }

    /// Waits for the task to end by itself.
    ///
    /// # Errors
    /// When the task was aborted or panicked.
    pub(crate) async fn join(&mut self) -> Result<T, JoinError> {
        (&mut self.0).await
    }

    /// Aborts the task and waits until all it owned is dropped.
    pub(crate) async fn abort(mut self) {
        self.0.abort();
        let _ = (&mut self.0).await;
    }
}

impl<T> Drop for Background<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
