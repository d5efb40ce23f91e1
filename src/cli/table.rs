//! Columns of text.

use super::output;

/// The space between columns, as kubectl has it.
const GAP: usize = 3;

/// A heading and rows below it, each column as wide as its widest cell.
pub(super) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let clean: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| output::line(cell)).collect()).collect();
    let width = |column: usize| {
        let cells = clean.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([heading[column].len()]).max().unwrap_or(0) + GAP
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let mut text = String::new();
    let heading = heading.iter().map(|&cell| cell.to_owned()).collect();
    for row in std::iter::once(&heading).chain(&clean) {
        text.push_str(&lined_up(row, &widths));
    }
    text
}

/// One row by fixed widths, the last cell as long as it is.
pub(super) fn lined_up(cells: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        line.push_str(cell);
        // A cell wider than its column still ends.
        let space = width.saturating_sub(cell.chars().count()).max(1);
        line.extend(std::iter::repeat_n(' ', space));
    }
    format!("{}\n", line.trim_end())
}
