//! The timestep search, compared with the best of all lists in the fixture, and on random tables.

use candle_core::DType;
use ddpm_core::likelihood::BoundEstimator;
use ddpm_core::{
    CounterRng, Error, NoiseSchedule, Purpose, ReverseVariance, TimestepCostEstimator, TimestepCosts,
    Timesteps,
};

use crate::likelihood::{fixture_schedule, images, list, noise, tensor};
use crate::network_of;
use crate::{assert_out_of_range, largest_difference, schedule, values};

fn fixture_costs(schedule: &NoiseSchedule, dtype: DType) -> TimestepCosts {
    let timesteps = Timesteps::all(schedule);
    let mut bound = BoundEstimator::new(schedule, &timesteps, &ReverseVariance::FixedSmall).unwrap();
    bound.add(&images(dtype), network_of(schedule), noise(0)).unwrap();
    let mut costs = TimestepCostEstimator::new(schedule, &bound.finish().unwrap()).unwrap();
    assert!(matches!(costs.finish(), Err(Error::NoImages)));
    for image in [0, 2] {
        let two = images(dtype).narrow(0, image, 2).unwrap();
        costs.add(&two, network_of(schedule), noise(image)).unwrap();
    }
    costs.finish().unwrap()
}

#[test]
fn the_best_lists_are_those_of_all_subsets_in_the_fixture() {
    let schedule = fixture_schedule("sample", ReverseVariance::FixedSmall);
    for (dtype, tolerance) in [(DType::F64, 1e-9), (DType::F32, 1e-5)] {
        let costs = fixture_costs(&schedule, dtype);
        let json = serde_json::to_value(&costs).unwrap();
        let saved = |name: &str| serde_json::from_value::<Vec<f64>>(json[name].clone()).unwrap();
        assert!(largest_difference(&saved("mse"), &values(&tensor("mse/sample"))) < tolerance);
        let decoder = values(&tensor("search/decoder"));
        assert!(largest_difference(&saved("decoder_bits_per_dim"), &decoder) < tolerance);
        let totals = values(&tensor("search/totals"));
        let together = costs.best_lists(&schedule).unwrap();
        assert_eq!(together.len(), 20);
        for (n, total) in std::iter::zip(1.., totals) {
            let (found, bits) = costs.best(&schedule, n).unwrap();
            assert_eq!(together[n - 1], (found.clone(), bits));
            assert_eq!(found, list(&schedule, &format!("search/timesteps/{n}")));
            assert_eq!(found, Timesteps::searched(&schedule, &costs, n).unwrap());
            assert!((bits - total).abs() < tolerance, "{n}: {bits} {total}");
        }
    }
}

/// The contract of the search: the bound of the best list with its optimal variances equals the bound that was returned.
#[test]
fn the_bound_of_the_list_is_what_the_search_says() {
    let schedule = fixture_schedule("sample", ReverseVariance::FixedSmall);
    let costs = fixture_costs(&schedule, DType::F64);
    for n in [1, 4, 20] {
        let (timesteps, bits) = costs.best(&schedule, n).unwrap();
        let reverse_variance = ReverseVariance::PerStep(costs.optimal_variances(&timesteps).unwrap());
        let mut bound = BoundEstimator::new(&schedule, &timesteps, &reverse_variance).unwrap();
        bound.add(&images(DType::F64), network_of(&schedule), noise(0)).unwrap();
        let total = bound.finish().unwrap().total_bits_per_dim.mean;
        assert!((total - bits).abs() < 1e-12, "{n}: {total} {bits}");
    }
}

#[test]
fn a_list_costs_what_its_variances_say_on_random_tables() {
    const T: usize = 9;
    let schedule = schedule(|config| config.num_train_timesteps = T);
    let alphas_cumprod = schedule.alphas_cumprod();
    let rng = CounterRng::new(31);
    let mut lengths = 0;
    for table in 0..20 {
        let random =
            |step| (0..T as u64).map(move |t| rng.uniform(Purpose::EVALUATION, 100 * table + t, step));
        let mse: Vec<f64> = random(0).map(|x| (12.0 * x - 9.0).exp()).collect();
        let decoder: Vec<f64> = random(1).map(|x| 6.0 * x).collect();
        let costs = TimestepCosts::new(mse.clone(), decoder.clone(), 0.7).unwrap();
        // KL(N(√ᾱ x₀, 1−ᾱ) ‖ N(0, 1)), and ½ log₂ σ*²/β̃.
        let prior = |t: usize| {
            let (mean_square, variance) = (0.7 * alphas_cumprod[t], 1.0 - alphas_cumprod[t]);
            0.5 * (mean_square + variance - 1.0 - variance.ln()) / std::f64::consts::LN_2
        };
        let between = |t: usize, s: usize| {
            let step = schedule.posterior_coefs(t, Some(s)).unwrap();
            0.5 * (1.0 + step.x_start_coef.powi(2) * mse[t] / step.variance).log2()
        };
        let cost = |list: &[usize]| {
            let steps: f64 = list.windows(2).map(|pair| between(pair[0], pair[1])).sum();
            prior(list[0]) + steps + decoder[list[list.len() - 1]]
        };
        let subsets =
            (1_usize..1 << T).map(|set| (0..T).rev().filter(|t| set >> t & 1 == 1).collect::<Vec<_>>());
        let subsets: Vec<(f64, Vec<usize>)> = subsets.map(|list| (cost(&list), list)).collect();
        for n in 1..=T {
            let best = subsets.iter().filter(|(_, list)| list.len() == n).min_by(|a, b| a.0.total_cmp(&b.0));
            let (expected, list) = best.unwrap();
            let (found, bits) = costs.best(&schedule, n).unwrap();
            assert!((bits - expected).abs() < 1e-12, "table {table}, {n}: {bits} {expected}");
            assert_eq!(&found.indices(), list, "table {table}");
            lengths += 1;
        }
    }
    assert_eq!(lengths, 180);
}

#[test]
fn costs_are_saved_and_costs_that_do_not_fit_are_refused() {
    let small = schedule(|config| config.num_train_timesteps = 3);
    let costs = TimestepCosts::new(vec![0.1, 0.2, 1.0 / 3.0], vec![1.0, 2.0, 3.0], 0.9).unwrap();
    let json = serde_json::to_string(&costs).unwrap();
    assert_eq!(serde_json::from_str::<TimestepCosts>(&json).unwrap(), costs);

    let large = schedule(|_| {});
    assert!(matches!(costs.best(&large, 2), Err(Error::TableLength { found: 3, expected: 20, .. })));
    let beyond = Timesteps::explicit(&large, vec![5, 1]).unwrap();
    let refused = costs.optimal_variances(&beyond).unwrap_err().to_string();
    assert_eq!(refused, "timestep is 5, expected 0 to 2");
    for n in [0, 4] {
        assert_out_of_range(costs.best(&small, n), "num_inference_steps", n);
    }
    let cut = json.replace("[1.0,2.0,3.0]", "[1.0,2.0]");
    assert_ne!(cut, json);
    let cut: TimestepCosts = serde_json::from_str(&cut).unwrap();
    assert!(matches!(cut.best(&small, 2), Err(Error::TableLength { found: 2, expected: 3, .. })));
    for (name, found, (mse, decoder, mean_square)) in [
        ("mse[1]", "-0.1", (-0.1, 1.0, 0.9)),
        ("decoder_bits_per_dim[1]", "NaN", (0.1, f64::NAN, 0.9)),
        ("mean_square", "-0.9", (0.1, 1.0, -0.9)),
    ] {
        let refused = TimestepCosts::new(vec![0.1, mse], vec![1.0, decoder], mean_square);
        assert_out_of_range(refused, name, found);
    }
}

/// Regression: every length up to T was searched and reported, so output and memory were quadratic in T.
#[test]
fn a_long_schedule_has_few_best_lists() {
    let long = schedule(|config| *config = ddpm_core::NoiseScheduleConfig::ho2020());
    let mse: Vec<f64> = long.alphas_cumprod().iter().map(|alpha| 0.1 * (1.0 - alpha)).collect();
    let costs = TimestepCosts::new(mse, vec![5.0; 1000], 0.9).unwrap();
    let lists = costs.best_lists(&long).unwrap();
    let lengths: Vec<usize> = lists.iter().map(|(list, _)| list.len()).collect();
    assert_eq!(lengths, (1..=20).chain([32, 64, 128, 256]).collect::<Vec<_>>());
    // Each list is the best of its length, although the table was made for the longest.
    for index in [2, 20] {
        assert_eq!(lists[index], costs.best(&long, lengths[index]).unwrap());
    }
}

#[test]
fn a_bound_over_other_timesteps_makes_no_costs() {
    let schedule = fixture_schedule("sample", ReverseVariance::FixedSmall);
    let some = Timesteps::spaced(&schedule, 5).unwrap();
    let mut bound = BoundEstimator::new(&schedule, &some, &ReverseVariance::FixedLarge).unwrap();
    bound.add(&images(DType::F64), network_of(&schedule), noise(0)).unwrap();
    let refused = TimestepCostEstimator::new(&schedule, &bound.finish().unwrap());
    let text = "the number of timesteps of the bound is 5, expected all 20 of the schedule";
    assert_eq!(refused.unwrap_err().to_string(), text);
}
