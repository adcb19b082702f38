//! `adit connector`: one node that listens, and the services behind it, until asked to end.

use std::path::Path;
use std::sync::Arc;

use adit_tokio::core::config::Config;
use adit_tokio::core::drive::Handle;

use crate::config::Service;
use crate::control::{self, Process};
use crate::forward::connector::{Services, serve};
use crate::home::Home;
use crate::stop::{Exit, Stop};
use crate::{config, identity, lifecycle, node, signals};

/// Runs until a signal.
///
/// # Errors
/// What is wrong with the configuration, the address or, later, the socket.
pub(crate) async fn run(path: &Path, home: Result<Home, Stop>) -> Result<(), Stop> {
    let config = config::Connector::load(path)?;
    let tls = identity::load(&config.tls)?;
    let ended = node::signals(signals::asked_to_end())?;
    let builder = Config::builder(tls)
        .listening(true)
        .device_id("connector")
        .transport(node::transport(config.limits));
    let core = node::build(builder, config.heartbeat, path)?;
    let node::Node { handle, mut driver } = node::start(config.listen, core)?;
    tracing::info!(listen = %config.listen, services = config.services.len(), "the connector is up");

    let _control = control::open(home.as_ref(), process(&config.services, &handle)).await;
    let _log = node::Background::spawn(lifecycle::log(handle.clone()));
    let services = Arc::new(Services::new(config.services, config.limits));
    let _serving = node::Background::spawn(serve(handle.clone(), services));
    tokio::select! {
        result = driver.ended() => Err(result),
        () = ended => shut_down(&handle).await,
    }
}

/// What `adit status` is told.
fn process(services: &[Service], handle: &Handle) -> Process {
    let handle = handle.clone();
    let process = Process::new("connector").peers(move || handle.snapshot().peers);
    services
        .iter()
        .fold(process, |process, service| process.exposing(&service.name, &service.backend))
}

/// Lets what is under way finish within the core's drain time; a second signal cuts it short.
///
/// # Errors
/// When a second signal did cut it short.
pub(crate) async fn shut_down(handle: &Handle) -> Result<(), Stop> {
    tracing::info!("ending: connections under way may finish; a second signal ends them now");
    let again = node::signals(signals::asked_to_end())?;
    handle.shutdown();
    tokio::select! {
        () = handle.closed() => Ok(()),
        () = again => Err(Stop::new(Exit::Degraded, "ended by a second signal; connections were cut")),
    }
}
