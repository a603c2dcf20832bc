//! The descriptors of objects that tests make: their readiness, and the interest of loops in them.

use std::fmt;
use std::io;
use std::os::fd::RawFd;

use super::events::Event;
use super::{Net, Source};
use crate::net::Readiness;
use crate::sim::Faults;
use crate::sim::trace::{DescriptorId, Entry};
use crate::source::Interest;

/// What a descriptor is ready for, or what is reported of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[allow(clippy::struct_excessive_bools)] // independent facts, any of which may hold
pub(in crate::sim) struct DescriptorState {
    pub(in crate::sim) readable: bool,
    pub(in crate::sim) writable: bool,
    pub(in crate::sim) ended: bool,
    pub(in crate::sim) failed: bool,
}

impl fmt::Display for DescriptorState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { readable, writable, ended, failed } = *self;
        let facts = [(readable, "readable"), (writable, "writable"), (ended, "ended"), (failed, "failed")];
        let names: Vec<&str> = facts.iter().filter(|(holds, _)| *holds).map(|(_, name)| *name).collect();
        f.write_str(if names.is_empty() { "not ready".to_owned() } else { names.join(" and ") }.as_str())
    }
}

/// The descriptor of a test's object.
pub(super) struct Descriptor {
    serial: u32,
    /// The number of the real descriptor that stands for this one.
    number: RawFd,
    state: DescriptorState,
    registered: Option<Registration>,
    /// The next report names all that the loop is interested in.
    is_spurious: bool,
    /// The descriptor is in the ready list of its poller.
    listed: bool,
}

#[derive(Clone, Copy)]
struct Registration {
    poller: u32,
    token: usize,
    interest: Interest,
}

impl Net {
    pub(in crate::sim) fn open_descriptor(&mut self, number: RawFd) -> DescriptorId {
        self.serial += 1;
        let serial = self.serial as u32;
        let state = DescriptorState::default();
        let index = self.foreign.insert(Descriptor {
            serial,
            number,
            state,
            registered: None,
            is_spurious: false,
            listed: false,
        });
        DescriptorId { index: index as u32, serial }
    }

    pub(in crate::sim) fn close_descriptor(&mut self, id: DescriptorId) {
        self.unregister_descriptor(id);
        if self.descriptor(id).is_some() {
            self.foreign.remove(id.index as usize);
        }
    }

    fn descriptor(&mut self, id: DescriptorId) -> Option<&mut Descriptor> {
        self.foreign.get_mut(id.index as usize).filter(|descriptor| descriptor.serial == id.serial)
    }

    /// Finds a descriptor of the simulation by that of the operating system which stands for it.
    fn descriptor_of(&self, number: RawFd) -> io::Result<DescriptorId> {
        let found = self.foreign.iter().find(|(_, descriptor)| descriptor.number == number);
        let (index, descriptor) = found.ok_or(io::ErrorKind::Unsupported)?;
        Ok(DescriptorId { index: index as u32, serial: descriptor.serial })
    }

    pub(in crate::sim) fn add_descriptor(
        &mut self,
        number: RawFd,
        poller: u32,
        token: usize,
        interest: Interest,
    ) -> io::Result<()> {
        let id = self.descriptor_of(number)?;
        if self.interest_in(id).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.change_descriptor(number, poller, token, interest)
    }

    /// Changes the interest in a descriptor, or registers it. What is ready is reported again.
    pub(in crate::sim) fn change_descriptor(
        &mut self,
        number: RawFd,
        poller: u32,
        token: usize,
        interest: Interest,
    ) -> io::Result<()> {
        let id = self.descriptor_of(number)?;
        let before = self.descriptor(id).and_then(|descriptor| descriptor.registered);
        if before.is_some_and(|before| before.poller != poller) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.register_descriptor(id, Registration { poller, token, interest });
        Ok(())
    }

    fn register_descriptor(&mut self, id: DescriptorId, registration: Registration) {
        if let Some(descriptor) = self.descriptor(id) {
            descriptor.registered = Some(registration);
            descriptor.is_spurious = false;
        }
        if !fault!("sim-source-not-reported-when-added") {
            self.will_announce(id);
        }
    }

    pub(in crate::sim) fn remove_descriptor(&mut self, number: RawFd) {
        if let Ok(id) = self.descriptor_of(number)
            && !fault!("sim-source-left-registered")
        {
            self.unregister_descriptor(id);
        }
    }

    fn unregister_descriptor(&mut self, id: DescriptorId) {
        let Some(descriptor) = self.descriptor(id) else { return };
        descriptor.listed = false;
        if let Some(Registration { poller, .. }) = descriptor.registered.take() {
            let is_other = |source: &Source| !matches!(source, Source::Descriptor(listed) if *listed == id);
            self.pollers[poller as usize].ready.retain(is_other);
        }
    }

    /// Returns the interest of the loop in which a descriptor is registered.
    pub(in crate::sim) fn interest_in(&mut self, id: DescriptorId) -> Option<Interest> {
        self.descriptor(id)?.registered.map(|registered| registered.interest)
    }

    /// Changes what a descriptor is ready for. The change is reported if it makes the descriptor
    /// ready for more.
    pub(in crate::sim) fn set_descriptor(
        &mut self,
        id: DescriptorId,
        is_more: bool,
        change: impl FnOnce(&mut DescriptorState),
    ) {
        let Some(descriptor) = self.descriptor(id) else { return };
        change(&mut descriptor.state);
        let state = descriptor.state;
        self.note(Entry::Becomes { descriptor: id, state });
        if is_more {
            self.will_announce(id);
        }
    }

    /// Reports what a descriptor is ready for now, or late.
    fn will_announce(&mut self, id: DescriptorId) {
        let Faults { late_ready, spurious_ready, .. } = self.faults;
        if let Some(delay) = self.occurs_for("spurious_ready", id.index, spurious_ready) {
            self.schedule(delay, Event::AnnounceDescriptor { to: id, is_spurious: true });
        }
        if let Some(delay) = self.occurs_for("late_ready", id.index, late_ready) {
            self.schedule(delay, Event::AnnounceDescriptor { to: id, is_spurious: false });
        } else {
            self.announce_descriptor(id, false);
        }
    }

    /// Adds a descriptor to the ready list of its poller, if there is anything to report.
    pub(super) fn announce_descriptor(&mut self, id: DescriptorId, is_spurious: bool) {
        let Some(descriptor) = self.descriptor(id) else { return };
        let Some(Registration { poller, .. }) = descriptor.registered else { return };
        descriptor.is_spurious |= is_spurious;
        if descriptor.reported() != DescriptorState::default() && !descriptor.listed {
            descriptor.listed = true;
            self.pollers[poller as usize].ready.push(Source::Descriptor(id));
        }
    }

    /// Returns what is reported of a descriptor that was in the ready list of a poller.
    pub(super) fn descriptor_readiness(&mut self, id: DescriptorId) -> Option<Readiness> {
        let descriptor = self.descriptor(id)?;
        descriptor.listed = false;
        let registered = descriptor.registered?;
        let state = descriptor.reported();
        descriptor.is_spurious = false;
        if state == DescriptorState::default() {
            return None;
        }
        self.note(Entry::Reports { descriptor: id, state });
        let DescriptorState { readable, writable, ended, failed } = state;
        Some(Readiness { token: registered.token, readable, writable, ended, failed })
    }
}

impl Descriptor {
    /// Returns what the system would report now: errors always, as it does, and the rest if the
    /// loop is interested.
    fn reported(&self) -> DescriptorState {
        let Some(Registration { interest, .. }) = self.registered else { return DescriptorState::default() };
        let DescriptorState { readable, writable, ended, failed } = self.state;
        let is_ready = |ready: bool, wanted: bool| {
            (ready || self.is_spurious) && (wanted || fault!("sim-source-ignores-interest"))
        };
        DescriptorState {
            readable: is_ready(readable || ended, interest.readable),
            writable: is_ready(writable || failed, interest.writable),
            ended: ended && interest.readable,
            failed,
        }
    }
}
