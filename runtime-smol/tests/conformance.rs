//! The shared suite, on smol.

use std::future::Future;
use std::io::Result;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use adit_core::config::Config;
use adit_core::drive::Stream;
use adit_core::testing::conformance::Runtime;
use adit_smol::{Driver, Handle, SmolIo};
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

    fn listen_tcp(io: &mut SmolIo, listener: TcpListener) -> Result<()> {
        io.listen_tcp(listener)
    }

    fn bind(addr: SocketAddr, config: Config) -> Result<(Handle, SocketAddr, Driver)> {
        let socket = UdpSocket::bind(addr)?;
        let addr = socket.local_addr()?;
        let (handle, driver) = adit_smol::from_socket(socket, config)?;
        Ok((handle, addr, driver))
    }

    async fn exchange(stream: Stream, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let (mut send, mut recv) = adit_smol::Stream::from(stream).split();
        let write = async {
            send.write_all(&bytes).await?;
            send.close().await
        };
        let mut answer = Vec::new();
        smol::future::try_zip(write, recv.read_to_end(&mut answer)).await?;
        Ok(answer)
    }
}

adit_core::conformance!(Smol);
