//! Text aligned at its tabs, as Go's tabwriter does it for `describe`.
//!
//! A cell is text that ends with a tab. Cells that stand below each other in consecutive lines make a
//! column, as wide as its widest cell and two spaces more. What follows a line's last tab is no cell.

/// The spaces between columns.
const PADDING: usize = 2;

/// Aligns the text.
pub fn align(text: &str) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut out = Vec::with_capacity(lines.len());
    block(&lines, &mut Vec::new(), &mut out);
    out.join("\n")
}

/// Finds the blocks of the next column in these lines; the columns before it have their widths.
fn block(lines: &[Vec<&str>], widths: &mut Vec<usize>, out: &mut Vec<String>) {
    let column = widths.len();
    let has_cell = |line: &Vec<&str>| column + 1 < line.len();
    let mut rest = lines;
    while !rest.is_empty() {
        let without = rest.iter().position(has_cell).unwrap_or(rest.len());
        out.extend(rest[..without].iter().map(|line| padded(line, widths)));
        rest = &rest[without..];
        let with = rest.iter().position(|line| !has_cell(line)).unwrap_or(rest.len());
        let (inside, after) = rest.split_at(with);
        if !inside.is_empty() {
            let widest = inside.iter().map(|line| line[column].chars().count()).max();
            widths.push(widest.unwrap_or_default() + PADDING);
            block(inside, widths, out);
            widths.pop();
        }
        rest = after;
    }
}

fn padded(line: &[&str], widths: &[usize]) -> String {
    let mut text = String::new();
    for (index, cell) in line.iter().enumerate() {
        text.push_str(cell);
        if index + 1 < line.len() {
            let width = widths.get(index).copied().unwrap_or_default();
            text.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::align;

    #[test]
    fn columns_are_consecutive_lines() {
        for (text, aligned) in [
            ("a:\t1\nlong:\t2\n", "a:     1\nlong:  2\n"),
            ("a:\t1\n\nlong:\t2\n", "a:  1\n\nlong:  2\n"),
            (
                "a:\t1\n  x\tyy\tz\nb\tyyyy\tz\n",
                "a:   1\n  x  yy    z\nb    yyyy  z\n",
            ),
            ("n\t\tx\nnn\t\ty\n", "n     x\nnn    y\n"),
            ("plain\n", "plain\n"),
            ("", ""),
        ] {
            assert_eq!(align(text), aligned, "{text:?}");
        }
    }
}
