//! What comes before what, and circles.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};

use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use super::error::{Code, Mistake};
use super::source::Span;

/// A node of a circle, and the place where it refers to the next one.
pub(super) type Link = (usize, Span);

/// The result of [`sort`].
#[derive(Debug)]
pub(super) struct Sorted {
    /// Every node that is in no circle and needs none, after all that it needs; else in the order of the
    /// file.
    pub(super) order: Vec<usize>,
    /// One shortest circle of each knot of nodes that need each other, beginning with the first in the file.
    pub(super) circles: Vec<Vec<Link>>,
}

/// Sorts nodes by what they need: `needs[i]` are the nodes that node i refers to, and where.
pub(super) fn sort(needs: &[Vec<Link>]) -> Sorted {
    let edges = needs.iter().map(Vec::len).sum();
    let mut graph: DiGraph<(), ()> = DiGraph::with_capacity(needs.len(), edges);
    for _ in needs {
        graph.add_node(());
    }
    for (node, needed) in needs.iter().enumerate() {
        for (earlier, _) in needed {
            graph.add_edge(NodeIndex::new(*earlier), NodeIndex::new(node), ());
        }
    }
    let mut missing: Vec<usize> = needs.iter().map(Vec::len).collect();
    let mut ready: BinaryHeap<Reverse<usize>> = missing
        .iter()
        .enumerate()
        .filter(|(_, missing)| **missing == 0)
        .map(|(node, _)| Reverse(node))
        .collect();
    let mut order = Vec::with_capacity(needs.len());
    while let Some(Reverse(node)) = ready.pop() {
        order.push(node);
        for dependent in graph.neighbors(NodeIndex::new(node)) {
            let missing = &mut missing[dependent.index()];
            *missing -= 1;
            if *missing == 0 {
                ready.push(Reverse(dependent.index()));
            }
        }
    }
    let circles = if order.len() == needs.len() { Vec::new() } else { circles(&graph, needs) };
    Sorted { order, circles }
}

fn circles(graph: &DiGraph<(), ()>, needs: &[Vec<Link>]) -> Vec<Vec<Link>> {
    let knots = kosaraju_scc(graph).into_iter().filter_map(|knot| {
        let knot: HashSet<usize> = knot.into_iter().map(NodeIndex::index).collect();
        let first = *knot.iter().min()?;
        shortest_circle(first, &knot, needs)
    });
    let mut circles: Vec<Vec<Link>> = knots.collect();
    circles.sort_by_key(|circle| circle.first().map(|(node, _)| *node));
    circles
}

/// The fewest steps from `first` back to itself, staying inside `knot`; `None` if there is no way.
fn shortest_circle(first: usize, knot: &HashSet<usize>, needs: &[Vec<Link>]) -> Option<Vec<Link>> {
    // For each node that was reached: the node before it, and where that refers to it.
    let mut reached: HashMap<usize, Link> = HashMap::new();
    let mut queue = VecDeque::from([first]);
    while let Some(node) = queue.pop_front() {
        for (next, at) in &needs[node] {
            if knot.contains(next) && !reached.contains_key(next) {
                reached.insert(*next, (node, *at));
                queue.push_back(*next);
            }
        }
    }
    let mut circle = vec![*reached.get(&first)?];
    while let Some(link) = circle.last().filter(|(node, _)| *node != first) {
        circle.push(*reached.get(&link.0)?);
    }
    circle.reverse();
    Some(circle)
}

/// `a -> b -> a`, with the place of every reference.
pub(super) fn circle_mistake(circle: &[(&str, Span)]) -> Mistake {
    let names: Vec<&str> =
        circle.iter().map(|(name, _)| *name).chain(circle.first().map(|(name, _)| *name)).collect();
    let whole = names.join(" -> ");
    let message = match circle.len() {
        1 => format!("a node needs itself: {whole}"),
        _ => format!("nodes need each other in a circle: {whole}"),
    };
    let label = |index: usize| format!("`{}` needs `{}`", names[index], names[index + 1]);
    let mistake = Mistake::new(Code::Cycle, circle[0].1, message).label(label(0));
    (1..circle.len()).fold(mistake, |mistake, index| mistake.also(circle[index].1, label(index)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOWHERE: Span = Span { source: 0, start: 0, end: 0 };

    fn sorted(needs: &[&[usize]]) -> (Vec<usize>, Vec<Vec<usize>>) {
        let links = |needs: &&[usize]| needs.iter().map(|node| (*node, NOWHERE)).collect();
        let Sorted { order, circles } = sort(&needs.iter().map(links).collect::<Vec<Vec<Link>>>());
        (
            order,
            circles.into_iter().map(|circle| circle.into_iter().map(|(node, _)| node).collect()).collect(),
        )
    }

    #[test]
    fn the_order_of_the_file_decides_where_it_can() {
        assert_eq!(sorted(&[&[3], &[], &[1, 1], &[]]), (vec![1, 2, 3, 0], vec![]));
        assert_eq!(sorted(&[]), (vec![], vec![]));
    }

    #[test]
    fn the_shortest_circle_of_each_knot() {
        // 0 -> 1 -> 2 -> 0 with a shortcut 0 -> 2, 3 -> 3, 4 after 3.
        assert_eq!(sorted(&[&[1, 2], &[2], &[0], &[3], &[3], &[]]), (vec![5], vec![vec![0, 2], vec![3]]));
    }

    #[test]
    fn long_chains_need_no_deep_stack() {
        let needs: Vec<Vec<Link>> = (0..100_000)
            .map(|node| if node == 0 { vec![(99_999, NOWHERE)] } else { vec![(node - 1, NOWHERE)] })
            .collect();
        let Sorted { order, circles } = sort(&needs);
        assert!(order.is_empty());
        assert_eq!(circles.len(), 1);
        assert_eq!(circles[0].len(), 100_000);
    }
}
