//! The shared suite, on smol.

use std::future::Future;
use std::io::Result;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use adit_core::testing::conformance::Runtime;
use adit_smol::SmolIo;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

struct Smol;

impl Runtime for Smol {
    type Io = SmolIo;
    type Task = smol::Task<()>;

    fn block_on<F: Future>(future: F) -> F::Output {
        smol::block_on(future)
    }

    fn spawn(future: impl Future<Output = ()> + Send + 'static) -> smol::Task<()> {
        smol::spawn(future)
    }

    async fn sleep(duration: Duration) {
        smol::Timer::after(duration).await;
    }

    fn io(addr: SocketAddr) -> Result<(SmolIo, SocketAddr)> {
        let socket = UdpSocket::bind(addr)?;
        let addr = socket.local_addr()?;
        Ok((SmolIo::new(socket)?, addr))
    }
}
adit_core::conformance!(Smol);
