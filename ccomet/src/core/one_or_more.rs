//! A list of at least one item. A single item, the most frequent case, needs no allocation.

/// A first item, and those after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OneOrMore<T> {
    pub(crate) first: T,
    pub(crate) rest: Vec<T>,
}

impl<T> OneOrMore<T> {
    pub(crate) fn one(first: T) -> Self {
        Self { first, rest: Vec::new() }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.first).chain(&self.rest)
    }

    /// Converts each item, in order.
    pub(crate) fn map<U>(self, mut make: impl FnMut(T) -> U) -> OneOrMore<U> {
        let first = make(self.first);
        OneOrMore { first, rest: self.rest.into_iter().map(make).collect() }
    }
}
