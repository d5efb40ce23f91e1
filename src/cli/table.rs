//! Columns of text.

use super::output;

/// The space between columns, as kubectl has it.
const GAP: usize = 3;

/// A heading and rows below it, each column as wide as its widest cell.
pub(super) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let heading: Vec<String> = heading.iter().map(|&cell| cell.to_owned()).collect();
    Widths::default().lines(std::iter::once(&heading).chain(rows))
}

/// How wide columns are: as their widest cell so far.
#[derive(Debug, Default)]
pub(super) struct Widths(Vec<usize>);

impl Widths {
    /// Rows, a line each, in columns at least as wide as those before.
    pub(super) fn lines<'r>(&mut self, rows: impl IntoIterator<Item = &'r Vec<String>>) -> String {
        let clean = |row: &Vec<String>| row.iter().map(|cell| output::line(cell)).collect();
        let rows: Vec<Vec<String>> = rows.into_iter().map(clean).collect();
        for row in &rows {
            self.0.resize(row.len().max(self.0.len()), 0);
            for (width, cell) in self.0.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count() + GAP);
            }
        }
        rows.iter().map(|row| lined_up(row, &self.0)).collect()
    }
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
