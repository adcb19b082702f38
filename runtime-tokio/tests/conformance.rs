//! The shared suite, on tokio.

use std::future::Future;
use std::io::Result;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use adit_core::testing::conformance::Runtime;
use adit_tokio::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

struct Tokio;

/// A task that does not outlive its owner.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Runtime for Tokio {
    type Io = TokioIo;
    type Task = Task;

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
            .block_on(future)
    }

    fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Task {
        Task(tokio::spawn(future))
    }

    async fn sleep(duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn io(addr: SocketAddr) -> Result<(TokioIo, SocketAddr)> {
        let socket = UdpSocket::bind(addr)?;
        let addr = socket.local_addr()?;
        Ok((TokioIo::new(socket)?, addr))
    }
}
adit_core::conformance!(Tokio);
