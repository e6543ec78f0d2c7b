//! Indices as the option of a job array expects them.

/// Ascending indices with runs in short, such as `3,7-9`.
pub(super) fn expression(indices: &[usize]) -> String {
    let mut runs: Vec<[usize; 2]> = Vec::new();
    for &index in indices {
        match runs.last_mut() {
            Some([_, last]) if *last + 1 == index => *last = index,
            _ => runs.push([index; 2]),
        }
    }
    let text = |[first, last]: [usize; 2]| match last - first {
        0 => first.to_string(),
        _ => format!("{first}-{last}"),
    };
    runs.into_iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::expression;

    #[test]
    fn runs_are_ranges() {
        for (indices, text) in [
            (&[][..], ""),
            (&[0], "0"),
            (&[3, 7, 8, 9], "3,7-9"),
            (&[0, 1, 3, 5, 6], "0-1,3,5-6"),
            (&[0, 1, 2, 3], "0-3"),
        ] {
            assert_eq!(expression(indices), text);
        }
    }
}
