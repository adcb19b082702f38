//! A link in user space between two namespaces: it delays, loses and reorders as the simulated ones
//! do, in real time. The kernels that the lab runs on have no such queue of their own.
//!
//! [`adit_core::testing::link`] decides when each frame is forwarded; this never looks into one.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use adit_core::rng::Rng;
use adit_core::testing::link::{Conditions, Link, PacketFate};
use adit_core::testing::marks::Marks;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use super::namespace::Namespace;

/// The longest frame: an Ethernet's, with its header.
const FRAME: usize = 1_514;

/// Longest sleep of the pump.
const NAP: Duration = Duration::from_millis(50);

/// A link that lives as long as its owner.
pub(crate) struct Wire {
    links: Arc<Mutex<[Link; 2]>>,
    is_over: Arc<AtomicBool>,
    pump: Option<JoinHandle<()>>,
}

impl Wire {
    /// Makes a device in each namespace, and forwards frames between the two.
    pub(crate) fn between(
        one: (&Namespace, &str),
        other: (&Namespace, &str),
        conditions: &Conditions,
    ) -> Self {
        // The longest frame is an Ethernet's, whatever limit the conditions have for datagrams.
        let conditions = Conditions { mtu: FRAME, ..conditions.clone() };
        let devices = [one, other].map(|(namespace, name)| device(namespace, name));
        let link = |n: u8| Link::new(conditions.clone(), Rng::new([n; 32], "wire"));
        let links = Arc::new(Mutex::new([link(1), link(2)]));
        let is_over = Arc::new(AtomicBool::new(false));
        let (shared, over) = (Arc::clone(&links), Arc::clone(&is_over));
        let pump = std::thread::spawn(move || pump(&devices, &shared, &over));
        Self { links, is_over, pump: Some(pump) }
    }

    /// Changes the conditions in both directions.
    pub(crate) fn change(&self, change: impl Fn(&mut Conditions)) {
        self.links.lock().unwrap().iter_mut().for_each(|link| change(link.conditions_mut()));
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(pump) = self.pump.take() {
            let _ = pump.join();
        }
    }
}

fn device(namespace: &Namespace, name: &str) -> SyncDevice {
    let device = namespace.enter(|| {
        DeviceBuilder::new().name(name).layer(Layer::L2).enable(false).build_sync().unwrap()
    });
    device.set_nonblocking(true).unwrap();
    namespace.raise(name);
    device
}

fn pump(devices: &[SyncDevice; 2], links: &Mutex<[Link; 2]>, is_over: &AtomicBool) {
    let (mut waiting, mut count) = (BTreeMap::<(Instant, u64), (usize, Vec<u8>)>::new(), 0);
    let mut frame = vec![0; 2 * FRAME];
    while !is_over.load(Ordering::Relaxed) {
        let until = waiting.first_key_value().map(|(&(at, _), _)| at);
        let nap = until.map_or(NAP, |at| at.saturating_duration_since(Instant::now()).min(NAP));
        sleep(devices, nap);
        for (from, device) in devices.iter().enumerate() {
            while let Ok(length) = device.recv(&mut frame) {
                let mut bytes = frame[..length].to_vec();
                let now = Instant::now();
                let link = &mut links.lock().unwrap()[from];
                let fate = link.carry(&mut bytes, &mut None, &mut Marks::new(), now);
                let PacketFate::Arrives(at, again) = fate else { continue };
                for at in again.into_iter().chain([at]) {
                    waiting.insert((at, count), (1 - from, bytes.clone()));
                    count += 1;
                }
            }
        }
        let now = Instant::now();
        while let Some(entry) = waiting.first_entry().filter(|entry| entry.key().0 <= now) {
            let (to, bytes) = entry.remove();
            // A device that is down or full loses it, as any link does.
            let _ = devices[to].send(&bytes);
        }
    }
}

/// Waits until a frame comes, or for this long.
fn sleep(devices: &[SyncDevice; 2], nap: Duration) {
    let [one, other] = devices;
    let mut ready =
        [one, other].map(|device| PollFd::from_borrowed_fd(device.as_fd(), PollFlags::IN));
    let nap = Timespec { tv_sec: 0, tv_nsec: nap.subsec_nanos().into() };
    let _ = poll(&mut ready, Some(&nap));
}
