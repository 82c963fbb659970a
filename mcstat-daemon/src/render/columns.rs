//! Padded columns as kubectl prints them: three spaces after the widest cell, at least six in all, no trailing blanks.
//!
//! The rules of Go's `text/tabwriter` with kubectl's parameters (minimum width 6, padding 3, blanks). Pure.

use std::fmt::Write as _;

const MINIMUM_WIDTH: usize = 6;
const PADDING: usize = 3;

/// Lines of text with every column padded to its widest cell; each line ends in a newline. All rows, the header among
/// them, have the same number of cells.
#[must_use]
pub fn pad(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let widest = rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max();
            (widest.unwrap_or(0) + PADDING).max(MINIMUM_WIDTH)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if column + 1 == row.len() {
                text.push_str(cell);
            } else {
                // Writing to a String cannot fail.
                let _ = write!(text, "{cell:<width$}");
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(lines: &[&[&str]]) -> Vec<Vec<String>> {
        lines
            .iter()
            .map(|line| line.iter().map(|cell| (*cell).to_owned()).collect())
            .collect()
    }

    /// As kubectl 1.32 prints a Table of these cells.
    #[test]
    fn columns_are_padded_by_three_and_at_least_six_wide() {
        let text = pad(&rows(&[
            &["NAME", "IN", "STATUS"],
            &["feed-0", "812", "OK"],
            &["b", "-", "NotCounted"],
        ]));
        assert_eq!(
            text,
            "NAME     IN    STATUS\nfeed-0   812   OK\nb        -     NotCounted\n"
        );
    }

    #[test]
    fn nothing_is_no_text() {
        assert_eq!(pad(&[]), "");
    }
}
