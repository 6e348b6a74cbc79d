//! Aligned columns, as Go's tabwriter makes them for kubectl: cells padded to the widest of their column
//! and three spaces more, the last cell of a line as it is.

/// The spaces between columns.
const PADDING: usize = 3;
/// The least width of a column, its padding included.
const MIN_WIDTH: usize = 6;

/// Lines of cells; widths may be remembered from earlier lines of the same table.
#[derive(Default)]
pub struct Columns {
    widths: Vec<usize>,
}

impl Columns {
    /// Aligns lines with each other and with those before.
    pub fn align(&mut self, lines: &[Vec<String>]) -> String {
        for line in lines {
            // The last cell ends its line: it makes no column wider.
            for (index, cell) in line.iter().take(line.len().saturating_sub(1)).enumerate() {
                let width = (cell.chars().count() + PADDING).max(MIN_WIDTH);
                match self.widths.get_mut(index) {
                    Some(known) => *known = (*known).max(width),
                    None => self.widths.push(width),
                }
            }
        }
        let mut out = String::new();
        for line in lines {
            for (index, cell) in line.iter().enumerate() {
                out.push_str(cell);
                if index + 1 < line.len() {
                    let width = self.widths.get(index).copied().unwrap_or_default();
                    let spaces = width.saturating_sub(cell.chars().count());
                    out.extend(std::iter::repeat_n(' ', spaces));
                }
            }
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(lines: &[&[&str]]) -> Vec<Vec<String>> {
        lines
            .iter()
            .map(|line| line.iter().map(ToString::to_string).collect())
            .collect()
    }

    #[test]
    fn aligned() {
        let lines = cells(&[&["NAME", "READY", "AGE"], &["nginx-long", "1/1", "5s"]]);
        let mut columns = Columns::default();
        assert_eq!(
            columns.align(&lines),
            "NAME         READY   AGE\nnginx-long   1/1     5s\n"
        );
        // A later line, as in a watch, keeps to the columns.
        assert_eq!(
            columns.align(&cells(&[&["a", "1/1", "6s"]])),
            "a            1/1     6s\n"
        );
        let mut narrow = Columns::default();
        assert_eq!(narrow.align(&cells(&[&["A", "B"], &["1", "2"]])), "A     B\n1     2\n");
    }
}
