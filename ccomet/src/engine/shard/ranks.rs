//! An approximate ranking by weight: the heaviest of many items, within a quarter. A change costs
//! constant time, and allocates nothing unless the weight has changed by as much.

/// The number of ranks for each power of two.
const STEPS: usize = 4;

/// Items ranked by their weights. Each has a number, as in a slab.
#[derive(Debug, Default)]
pub(super) struct Ranks {
    /// The rank of each item, and its index in the list of that rank.
    places: Vec<(usize, usize)>,
    /// The items of each rank. Rank 0 lists nothing.
    ranks: Vec<Vec<u32>>,
}

impl Ranks {
    /// Sets the weight of an item; 0 removes it.
    pub(super) fn set(&mut self, item: usize, weight: usize) {
        if self.places.len() <= item {
            self.places.resize(item + 1, (0, 0));
        }
        let (rank, place) = self.places[item];
        let next = rank_of(weight);
        if next == rank {
            return;
        }
        if rank > 0 {
            self.ranks[rank].swap_remove(place);
            if let Some(moved) = self.ranks[rank].get(place) {
                self.places[*moved as usize].1 = place;
            }
            while self.ranks.last().is_some_and(Vec::is_empty) {
                self.ranks.pop();
            }
        }
        if next > 0 {
            if self.ranks.len() <= next {
                self.ranks.resize_with(next + 1, Vec::new);
            }
            self.places[item] = (next, self.ranks[next].len());
            self.ranks[next].push(item as u32);
        } else {
            self.places[item] = (0, 0);
        }
    }

    /// Returns an item of the highest rank.
    pub(super) fn heaviest(&self) -> Option<usize> {
        self.ranks.last()?.last().map(|item| *item as usize)
    }
}

/// Returns the rank of a weight: greater for greater weights, and 0 for weight 0.
fn rank_of(weight: usize) -> usize {
    let Some(power) = weight.checked_ilog2() else { return 0 };
    // The two bits after the highest.
    let step = if power >= 2 { weight >> (power - 2) & (STEPS - 1) } else { weight << (2 - power) & (STEPS - 1) };
    1 + power as usize * STEPS + step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heaviest_is_no_more_than_a_quarter_lighter_than_any() {
        let (mut ranks, mut weights) = (Ranks::default(), vec![0; 50]);
        let mut random = 1_u64;
        for _ in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (item, weight) = (random as usize >> 33, random as usize >> (44 + random % 20));
            weights[item % 50] = if weight % 3 == 0 { 0 } else { weight };
            ranks.set(item % 50, weights[item % 50]);
            let most = *weights.iter().max().expect("one");
            let heaviest = ranks.heaviest().map_or(0, |item| weights[item]);
            assert!(heaviest * 5 >= most * 4, "{heaviest} of {most}");
        }
    }

    #[test]
    fn ranks_are_in_the_order_of_weights() {
        let ranks: Vec<usize> = (0..5_000).map(rank_of).collect();
        assert!(ranks.is_sorted());
        assert_eq!(ranks[..9], [0, 1, 5, 7, 9, 10, 11, 12, 13]);
    }
}
