//! How much of a scarce resource each holder has, and which item makes room when all of it is taken.
//!
//! It decides between holders by how much they hold: a place, an entry or a stream that a newcomer
//! needs is taken from the holder that has the most, and only if the newcomer's own holder still
//! has less afterwards. A holder is a source, which is counted at several widths, or a key within a
//! mesh. It never ends anything itself, and does not know what it counts.
//!
//! Every call costs O(log n).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::tls::KeyDigest;

/// Widths at which a source is counted, the widest first.
pub(crate) const WIDTHS: usize = 3;

/// The first 64 bits of the addresses that a host of IPv6 chooses from; an IPv4 address is under
/// the prefix `::/32`, which is reserved, so that it belongs to no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SourceNetwork(u64);

impl SourceNetwork {
    /// A source that no address has: IPv4 addresses have no more than 32 bits, and `::1:0:0:0`
    /// is reserved with all of `::/8` (RFC 4291).
    pub(crate) const NONE: Self = Self(1 << 32);

    /// Returns the source of a packet: an IPv4 address, or the 64 bits of an IPv6 address that name
    /// a network, since a host with one address of a network can use them all (RFC 4291 §2.5.4).
    #[must_use]
    pub(crate) const fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(v4.to_bits() as u64),
            IpAddr::V6(v6) => Self((v6.to_bits() >> 64) as u64),
        }
    }

    /// Returns the holders that a source counts for: its /48, its /56 and its /64, since
    /// subscribers get any of these (RFC 6177). An IPv4 address is one holder at each width, and so
    /// is a network of `fd00::/8`: no subscriber gets a wider one there.
    #[must_use]
    pub(crate) const fn lineage(address: IpAddr) -> [Self; WIDTHS] {
        let Self(bits) = Self::of(address);
        match address.to_canonical() {
            IpAddr::V6(v6) if v6.octets()[0] != 0xfd => {
                [Self(bits & !0xffff), Self(bits & !0xff), Self(bits)]
            }
            IpAddr::V4(_) | IpAddr::V6(_) => [Self(bits); WIDTHS],
        }
    }
}

/// Which item of a holder makes room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MakesRoom {
    /// The item that came last: what was there first stays.
    Newest,
    /// The item that came first: a handshake that is honest is over soon.
    Oldest,
}

/// A holder at one level, and those above it.
type Name<H, const LEVELS: usize> = (usize, [H; LEVELS]);

/// The items of all holders, by a path of holders from the widest to the narrowest.
#[derive(Debug)]
pub(crate) struct Shares<H, const LEVELS: usize, I> {
    items: BTreeMap<I, Item<H, LEVELS>>,
    holders: BTreeMap<Name<H, LEVELS>, Holder<H, LEVELS, I>>,
    /// The widest holders, by what they hold.
    widest: Order<H, LEVELS>,
    total: usize,
    next: u64,
}

/// Holders by what they have, and by the number of the change that brought it; among equals, the
/// last has had it the longest.
type Order<H, const LEVELS: usize> = BTreeMap<(usize, Reverse<u64>), Name<H, LEVELS>>;

#[derive(Debug, Clone, Copy)]
struct Item<H, const LEVELS: usize> {
    path: [H; LEVELS],
    weight: usize,
    number: u64,
}

/// One holder. It has narrower holders, or items if it is one of the narrowest.
#[derive(Debug)]
struct Holder<H, const LEVELS: usize, I> {
    weight: usize,
    /// The number of the change that brought its weight.
    since: u64,
    count: usize,
    narrower: Order<H, LEVELS>,
    items: BTreeSet<(u64, I)>,
}

impl<H, const LEVELS: usize, I> Holder<H, LEVELS, I> {
    /// Returns its place in the order of holders.
    const fn rank(&self) -> (usize, Reverse<u64>) {
        (self.weight, Reverse(self.since))
    }
}

impl<H, const LEVELS: usize, I> Default for Holder<H, LEVELS, I> {
    fn default() -> Self {
        Self { weight: 0, since: 0, count: 0, narrower: BTreeMap::new(), items: BTreeSet::new() }
    }
}

impl<H, const LEVELS: usize, I> Default for Shares<H, LEVELS, I> {
    fn default() -> Self {
        Self {
            items: BTreeMap::new(),
            holders: BTreeMap::new(),
            widest: BTreeMap::new(),
            total: 0,
            next: 0,
        }
    }
}

impl<H: Ord + Copy, const LEVELS: usize, I: Ord + Copy> Shares<H, LEVELS, I> {
    /// Adds an item, or changes its weight and its holders; its age stays.
    pub(crate) fn set(&mut self, id: I, path: [H; LEVELS], weight: usize) {
        let number = self.remove(id).unwrap_or(self.next);
        self.next += 1;
        self.total += weight;
        self.items.insert(id, Item { path, weight, number });
        for level in (0..LEVELS).rev() {
            let name = name(&path, level);
            let holder = self.holders.entry(name).or_default();
            let before = holder.rank();
            holder.weight += weight;
            holder.since = self.next;
            holder.count += 1;
            let now = holder.rank();
            if level == LEVELS - 1 {
                holder.items.insert((number, id));
            }
            self.place(&path, level, before, Some(now));
        }
    }

    /// Removes an item; returns its number in the order of arrival.
    pub(crate) fn remove(&mut self, id: I) -> Option<u64> {
        let Item { path, weight, number } = self.items.remove(&id)?;
        self.total -= weight;
        for level in (0..LEVELS).rev() {
            let name = name(&path, level);
            let Some(holder) = self.holders.get_mut(&name) else { continue };
            let before = holder.rank();
            holder.weight -= weight;
            holder.count -= 1;
            holder.items.remove(&(number, id));
            let now = (holder.count > 0).then_some(holder.rank());
            if now.is_none() {
                self.holders.remove(&name);
            }
            self.place(&path, level, before, now);
        }
        Some(number)
    }

    /// Returns what all holders have together.
    pub(crate) const fn total(&self) -> usize {
        self.total
    }

    /// Returns the number of items.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Returns the weight of an item.
    pub(crate) fn weight(&self, id: I) -> usize {
        self.items.get(&id).map_or(0, |item| item.weight)
    }

    /// Returns what a holder has, at this level of its path.
    pub(crate) fn held(&self, path: &[H; LEVELS], level: usize) -> usize {
        self.holders.get(&name(path, level)).map_or(0, |holder| holder.weight)
    }

    /// Returns the item that makes room for `weight` more of a holder: one of the largest holder,
    /// at the widest level at which that is another and still has more than this one would have.
    /// The only item of a holder stays, unless the oldest makes room: it may be the only one of
    /// each.
    pub(crate) fn makes_room(
        &self,
        path: &[H; LEVELS],
        weight: usize,
        which: MakesRoom,
    ) -> Option<I> {
        let mut holders = &self.widest;
        for level in 0..LEVELS {
            let own = name(path, level);
            let (most, largest) = first_to_give(holders, which)?;
            let mine = self.holders.get(&own);
            let is_larger = mine.map_or(0, |it| it.weight) + weight < most;
            let is_spare = self.holders.get(&largest)?.count > 1 || which == MakesRoom::Oldest;
            if largest != own && is_larger && is_spare {
                return self.of_the_largest(largest, which);
            }
            holders = &mine?.narrower;
        }
        None
    }

    /// Returns the item that makes room among those of all holders.
    pub(crate) fn largest(&self, which: MakesRoom) -> Option<I> {
        let (_, largest) = first_to_give(&self.widest, which)?;
        self.of_the_largest(largest, which)
    }

    fn of_the_largest(&self, from: Name<H, LEVELS>, which: MakesRoom) -> Option<I> {
        let mut holder = self.holders.get(&from)?;
        while let Some((_, largest)) = first_to_give(&holder.narrower, which) {
            holder = self.holders.get(&largest)?;
        }
        let item = match which {
            MakesRoom::Newest => holder.items.last(),
            MakesRoom::Oldest => holder.items.first(),
        };
        item.map(|(_, id)| *id)
    }

    /// Keeps the order of holders by what they hold.
    fn place(
        &mut self,
        path: &[H; LEVELS],
        level: usize,
        before: (usize, Reverse<u64>),
        now: Option<(usize, Reverse<u64>)>,
    ) {
        let order = match level.checked_sub(1) {
            None => &mut self.widest,
            // The holders above are updated after this one.
            Some(above) => &mut self.holders.entry(name(path, above)).or_default().narrower,
        };
        order.remove(&before);
        order.extend(now.map(|rank| (rank, name(path, level))));
    }
}

/// The holders that an item of a client counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    source: [SourceNetwork; WIDTHS],
    /// A mesh and a key of it, or a key twice if it has no mesh.
    key: [KeyDigest; 2],
}

impl Origin {
    /// Returns the holders of what a client has: its source, its mesh and its key.
    #[must_use]
    pub(crate) fn new(source: IpAddr, mesh: Option<KeyDigest>, key: KeyDigest) -> Self {
        Self { source: SourceNetwork::lineage(source), key: [mesh.unwrap_or(key), key] }
    }

    /// Returns the key.
    #[must_use]
    pub(crate) const fn key(&self) -> KeyDigest {
        self.key[1]
    }
}

/// What clients have of a scarce resource, by their sources, and by their meshes and keys.
#[derive(Debug)]
pub(crate) struct ClientShares<I> {
    sources: Shares<SourceNetwork, WIDTHS, I>,
    keys: Shares<KeyDigest, 2, I>,
}

impl<I> Default for ClientShares<I> {
    fn default() -> Self {
        Self { sources: Shares::default(), keys: Shares::default() }
    }
}

impl<I: Ord + Copy> ClientShares<I> {
    /// Adds an item, or changes its weight and its holders; its age stays.
    pub(crate) fn set(&mut self, id: I, origin: &Origin, weight: usize) {
        self.sources.set(id, origin.source, weight);
        self.keys.set(id, origin.key, weight);
    }

    /// Removes an item.
    pub(crate) fn remove(&mut self, id: I) {
        self.sources.remove(id);
        self.keys.remove(id);
    }

    /// Returns what all clients have together.
    pub(crate) const fn total(&self) -> usize {
        self.sources.total()
    }

    /// Returns the number of items.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn len(&self) -> usize {
        self.sources.len()
    }

    /// Returns the weight of an item.
    pub(crate) fn weight(&self, id: I) -> usize {
        self.sources.weight(id)
    }

    /// Returns the newest item of the source with the most.
    pub(crate) fn largest(&self) -> Option<I> {
        self.sources.largest(MakesRoom::Newest)
    }

    /// Returns the newest item of the source, or else of the mesh, that has the most, for `weight`
    /// more of a client that would still have less.
    ///
    /// A source can have any number of meshes. One with more than the source of the item takes no
    /// room by another mesh.
    pub(crate) fn makes_room(&self, origin: &Origin, weight: usize) -> Option<I> {
        let of_a_source = self.sources.makes_room(&origin.source, weight, MakesRoom::Newest);
        of_a_source.or_else(|| {
            let newest = self.keys.makes_room(&origin.key, weight, MakesRoom::Newest)?;
            let of_newest = self.sources.items.get(&newest)?.path;
            let is_own = of_newest[0] == origin.source[0];
            let mine = self.sources.held(&origin.source, 0) + weight;
            (is_own || mine <= self.sources.held(&of_newest, 0)).then_some(newest)
        })
    }
}

/// Returns the holder with the most, and how much that is. Among equals, it is the last to have come
/// to it where the newest item makes room, and the first where the oldest does.
fn first_to_give<H: Copy, const LEVELS: usize>(
    order: &Order<H, LEVELS>,
    which: MakesRoom,
) -> Option<(usize, Name<H, LEVELS>)> {
    let (rank, name) = order.last_key_value()?;
    let (_, name) = match which {
        MakesRoom::Oldest => (rank, name),
        MakesRoom::Newest => order.range((rank.0, Reverse(u64::MAX))..).next()?,
    };
    Some((rank.0, *name))
}

/// Returns the name of a holder at a level: narrower holders do not belong to it.
fn name<H: Copy, const LEVELS: usize>(path: &[H; LEVELS], level: usize) -> Name<H, LEVELS> {
    let mut holders = *path;
    holders.iter_mut().skip(level + 1).for_each(|narrower| *narrower = path[level]);
    (level, holders)
}

#[cfg(test)]
mod tests;
