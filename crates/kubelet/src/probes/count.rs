//! When single answers become a result: so many of a kind in a row.

/// The thresholds and the current row.
#[derive(Debug, Clone)]
pub struct Count {
    successes: i32,
    failures: i32,
    last: Option<bool>,
    row: i32,
}

impl Count {
    /// Nothing was answered yet.
    pub fn new(successes: Option<i32>, failures: Option<i32>) -> Self {
        Self {
            successes: successes.unwrap_or(1).max(1),
            failures: failures.unwrap_or(3).max(1),
            last: None,
            row: 0,
        }
    }

    /// Takes an answer; the result, when the row is long enough.
    pub fn take(&mut self, good: bool) -> Option<bool> {
        if self.last == Some(good) {
            self.row = self.row.saturating_add(1);
        } else {
            (self.last, self.row) = (Some(good), 1);
        }
        let needed = if good { self.successes } else { self.failures };
        (self.row >= needed).then_some(good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_needs_a_row() {
        let cases: [(i32, i32, &str, &str); 4] = [
            (1, 3, "+", "+"),
            (1, 3, "---+-", "..-+."),
            (2, 1, "++-+", ".+-."),
            (1, 3, "--+--+---", "..+..+..-"),
        ];
        for (successes, failures, answers, results) in cases {
            let mut count = Count::new(Some(successes), Some(failures));
            let sign = |result| match result {
                Some(true) => '+',
                Some(false) => '-',
                None => '.',
            };
            assert_eq!(
                answers
                    .chars()
                    .map(|answer| sign(count.take(answer == '+')))
                    .collect::<String>(),
                results
            );
        }
    }
}
