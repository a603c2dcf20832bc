//! Memory that a loop frees while it runs.

mod common;

use allocation_counter::measure;
use common::{Book, Node, SECOND};
use sealed::sim::Simulation;
use sealed::{Config, Context, Rates};

const COUNT: u32 = 10_000;

/// Asserts that `give_back` frees at least nine tenths of what `take` makes the loop allocate.
fn assert_given_back<T>(
    node: &Node,
    take: impl Fn(&mut Context<Book>) -> T,
    give_back: impl Fn(&mut Context<Book>, T),
) {
    let mut held: Vec<T> = Vec::with_capacity(COUNT as usize);
    let taken = measure(|| node.act(|cx| (0..COUNT).for_each(|_| held.push(take(cx))))).bytes_current;
    assert!(taken >= i64::from(COUNT) * 8, "{taken} bytes");
    // The first one stays.
    let freed = -measure(|| node.act(|cx| held.drain(1..).for_each(|one| give_back(cx, one)))).bytes_current;
    assert!(freed >= taken / 10 * 9, "of {taken} bytes, {freed} are given back");
}

#[test]
fn memory_of_cancelled_timers_is_freed_while_one_stays() {
    let node = Node::start(&Simulation::new(1), Config::default(), Book::default());
    assert_given_back(&node, |cx| cx.set_timer(SECOND, 1), |cx, timer| assert_eq!(cx.cancel_timer(timer), Some(1)));
}

#[test]
fn memory_of_removed_groups_is_freed_while_one_stays() {
    let node = Node::start(&Simulation::new(1), Config::default(), Book::default());
    assert_given_back(&node, |cx| cx.add_group(Rates::default()), |cx, group| assert!(cx.remove_group(group)));
}

#[test]
fn memory_of_timers_is_freed_when_they_expire() {
    let sim = Simulation::new(1);
    let node = Node::start(&sim, Config::default(), Book::default());
    node.act(|cx| cx.set_timer(SECOND * 60, 0));
    let set = |cx: &mut Context<Book>| (0..COUNT).for_each(|value| _ = cx.set_timer(SECOND, value));
    let taken = measure(|| node.act(set)).bytes_current;
    let freed = -measure(|| {
        sim.run_for(SECOND * 2);
        assert_eq!(node.calls().len(), COUNT as usize);
    })
    .bytes_current;
    assert!(freed >= taken / 10 * 9, "of {taken} bytes, {freed} are given back");
}
