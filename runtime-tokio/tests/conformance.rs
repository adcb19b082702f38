//! The shared suite, on tokio.

use std::future::Future;
use std::io::Result;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use adit_core::config::Config;
use adit_core::drive::Stream;
use adit_core::testing::conformance::Runtime;
use adit_tokio::{Driver, Handle, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

struct Tokio;

/// A task that is aborted with its owner.
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
            .expect("the system has an event queue")
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

    fn listen_tcp(io: &mut TokioIo, listener: TcpListener) -> Result<()> {
        io.listen_tcp(listener)
    }

    fn bind(addr: SocketAddr, config: Config) -> Result<(Handle, SocketAddr, Driver)> {
        let socket = UdpSocket::bind(addr)?;
        let addr = socket.local_addr()?;
        let (handle, driver) = adit_tokio::from_socket(socket, config)?;
        Ok((handle, addr, driver))
    }

    async fn exchange(stream: Stream, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let (mut send, mut recv) = adit_tokio::Stream::from(stream).split();
        let write = async {
            send.write_all(&bytes).await?;
            send.shutdown().await
        };
        let mut answer = Vec::new();
        tokio::try_join!(write, recv.read_to_end(&mut answer))?;
        Ok(answer)
    }
}

adit_core::conformance!(Tokio);
