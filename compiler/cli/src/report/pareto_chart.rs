//! The plans of a search as a picture: the loss at one length against the loss at the others.

use moac_planner::search::outcome::{FoundPlan, SearchResult};

use super::chart::{Axis, Chart, Panel, Point, Series, svg};

/// Most panels side by side.
const PANELS: usize = 3;

/// The Pareto set as SVG: for the shortest length and each of the longest ones, every plan's loss there above the least of
/// the set.
pub fn pareto_chart(found: &SearchResult) -> String {
    let lengths: Vec<u32> =
        found.plans.first().map(|plan| plan.losses.keys().copied().collect()).unwrap_or_default();
    let at = |plan: &FoundPlan, length: u32| plan.losses.get(&length).copied().unwrap_or(f64::NAN);
    let least = |length: u32| found.plans.iter().map(|plan| at(plan, length)).fold(f64::INFINITY, f64::min);
    let above = |plan: &FoundPlan, length: u32| at(plan, length) - least(length);
    let first = lengths.first().copied().unwrap_or(0);
    // A search over one length has one plan, and nothing to weigh.
    let others = &lengths[lengths.len().saturating_sub(PANELS).max(usize::from(lengths.len() > 1))..];
    let panels = others.iter().map(|&other| {
        let series = |name: &str, colour: usize, together: bool| {
            let chosen = found.plans.iter().enumerate();
            let chosen = chosen.filter(|(_, plan)| (plan.minimised.len() > 1) == together);
            Series {
                name: name.to_owned(),
                colour: Some(colour),
                partner: false,
                joined: false,
                points: chosen
                    .map(|(number, plan)| Point {
                        x: above(plan, first),
                        y: above(plan, other),
                        interval: None,
                        said: format!(
                            "plan {number:02}: {:.5} at {first}, {:.5} at {other}",
                            at(plan, first),
                            at(plan, other)
                        ),
                    })
                    .collect(),
            }
        };
        Panel {
            title: format!("{other} tokens"),
            series: vec![series("one length minimised", 0, false), series("all lengths together", 1, true)],
        }
    });
    let most = |lengths: &[u32]| {
        let losses =
            lengths.iter().flat_map(|&length| found.plans.iter().map(move |plan| above(plan, length)));
        losses.fold(0.0, f64::max)
    };
    svg(&Chart {
        title: format!("Pareto set of {} plans", found.plans.len()),
        x: Axis::from_zero(&format!("estimated loss at {first} tokens above the least"), 0.0, most(&[first])),
        y: Axis::from_zero("estimated loss above the least at that length", 0.0, most(others)),
        panels: panels.collect(),
    })
}

#[cfg(test)]
mod tests {
    use moac_model::dense_plan;
    use moac_runtime::plan::ModelShape;

    use super::*;
    use moac_planner::search::solve::Status;

    fn found(losses: &[&[f64]]) -> SearchResult {
        let shape = ModelShape {
            name: "small".into(),
            num_layers: 1,
            num_heads: 1,
            num_kv_heads: 1,
            head_dim: 64,
            rope_theta: None,
            context: None,
            softmax_scale: None,
        };
        let plan = |losses: &&[f64]| FoundPlan {
            plan: dense_plan(&shape),
            losses: (1..).map(|at| 1024 * at).zip(losses.iter().copied()).collect(),
            costs: [(1024, 0.5)].into(),
            minimised: if losses[0] < 0.2 { vec![1024] } else { vec![1024, 2048] },
            gap: 0.0,
            status: Status::Optimal,
        };
        SearchResult {
            plans: losses.iter().map(plan).collect(),
            rules: 1,
            solved: 1,
            reused: 0,
            infeasible: 0,
            unanswered: 0,
        }
    }

    #[test]
    fn every_plan_is_a_mark_in_every_panel() {
        let svg = pareto_chart(&found(&[&[0.1, 0.5, 0.3], &[0.2, 0.3, 0.4], &[0.3, 0.4, 0.1]]));
        assert_eq!(svg.matches("<title>plan ").count(), 6, "three plans in two panels");
        assert!(svg.contains("plan 01: 0.20000 at 1024, 0.40000 at 3072"), "{svg}");
        assert!(svg.contains("2048 tokens") && svg.contains("3072 tokens") && !svg.contains(">1024 tokens<"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn one_plan_and_none_are_pictures_too() {
        for found in [found(&[&[0.1]]), found(&[])] {
            let svg = pareto_chart(&found);
            assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            assert_eq!(svg.matches("<title>plan ").count(), found.plans.len());
        }
    }
}
