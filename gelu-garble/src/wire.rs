//! Wires of garbled circuits: labels whose memory is used again, and wiped at the end.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use zeroize::Zeroize;

/// The memory of one garbler's or evaluator's wires. What a gate needs comes out of what other wires no longer do, so that
/// gates allocate nothing once a circuit is under way.
#[derive(Default)]
pub(crate) struct Pool {
    free: Cell<Vec<Vec<u128>>>,
    width: usize,
}

impl Pool {
    pub(crate) fn new(width: usize) -> Rc<Self> {
        Rc::new(Self { free: Cell::default(), width })
    }

    /// Returns the number of circuits side by side.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// A wire whose labels are yet to be written.
    pub(crate) fn take(self: &Rc<Self>) -> Wire {
        let mut free = self.free.take();
        let labels = free.pop().unwrap_or_else(|| vec![0; self.width]);
        self.free.set(free);
        Wire { labels, pool: self.clone() }
    }

    /// A wire with labels, which are as many as the [width](Self::width).
    pub(crate) fn wire(self: &Rc<Self>, labels: &[u128]) -> Wire {
        let mut wire = self.take();
        wire.labels.iter_mut().zip(labels).for_each(|(to, from)| *to = *from);
        wire
    }
}

/// By now the wires are gone, too: each of them keeps the pool.
impl Drop for Pool {
    fn drop(&mut self) {
        self.free.get_mut().iter_mut().for_each(Zeroize::zeroize);
    }
}

/// One bit of each of many garbled circuits side by side: a label of each. Its memory is wiped with the last of the
/// wires and the back end that they are of.
pub struct Wire {
    labels: Vec<u128>,
    pool: Rc<Pool>,
}

impl Wire {
    #[inline]
    pub(crate) fn labels(&self) -> &[u128] {
        &self.labels
    }

    #[inline]
    pub(crate) fn labels_mut(&mut self) -> &mut [u128] {
        &mut self.labels
    }
}

impl Clone for Wire {
    fn clone(&self) -> Self {
        self.pool.wire(&self.labels)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let mut free = self.pool.free.take();
        free.push(std::mem::take(&mut self.labels));
        self.pool.free.set(free);
    }
}

/// Does not print the labels.
impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("width", &self.labels.len()).finish_non_exhaustive()
    }
}
