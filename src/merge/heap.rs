//! A binary heap of numbers whose order lies elsewhere: which of several sorted sequences has the least row next.

/// Moves what is at `at` down to its place; below it the heap is in order, the least first by `is_before`.
pub(super) fn sift_down(heap: &mut [usize], mut at: usize, is_before: impl Fn(usize, usize) -> bool) {
    loop {
        let mut least = at;
        for child in [2 * at + 1, 2 * at + 2] {
            if child < heap.len() && is_before(heap[child], heap[least]) {
                least = child;
            }
        }
        if least == at {
            return;
        }
        heap.swap(at, least);
        at = least;
    }
}

/// Brings a heap in order.
pub(super) fn heapify(heap: &mut [usize], is_before: impl Fn(usize, usize) -> bool) {
    (0..heap.len() / 2).rev().for_each(|at| sift_down(heap, at, &is_before));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_is_always_first() {
        let mut rows: Vec<u32> = (0..97).map(|i| i * 7919 % 101).collect();
        let mut heap: Vec<usize> = (0..rows.len()).collect();
        heapify(&mut heap, |a, b| rows[a] < rows[b]);
        let mut seen = Vec::new();
        // each sequence has three rows, 50 apart
        while let Some(&first) = heap.first() {
            seen.push(rows[first]);
            if rows[first] < 100 {
                rows[first] += 50;
            } else {
                heap.swap_remove(0);
            }
            sift_down(&mut heap, 0, |a, b| rows[a] < rows[b]);
        }
        assert!(seen.is_sorted());
        assert!(seen.len() > 200, "{}", seen.len());
    }
}
