//! How text for people fits its terminal: lines are wrapped, and tables drop columns or stack their
//! rows. It decides where a line breaks, and never what it contains.

use console::{Alignment, Term, measure_text_width, pad_str};

/// Columns of a terminal of unknown size, and of what is no terminal.
pub(crate) const WIDTH: usize = 80;

/// Narrowest layout: below it, every line would be one word.
const MIN_WIDTH: usize = 40;

/// How much deeper a continued line is indented than its first line.
const HANGING_INDENT: usize = 4;

/// Space between two columns.
const GAP: &str = "  ";

/// Returns the columns that stdout has.
pub(crate) fn width() -> usize {
    let size = Some(Term::stdout()).filter(Term::is_term).and_then(|term| term.size_checked());
    size.map_or(WIDTH, |(_, columns)| usize::from(columns)).max(MIN_WIDTH)
}

/// Returns the text with every line at most `width` columns wide. A line breaks at spaces; a word
/// that is wider than a line is cut.
pub(crate) fn wrap(text: &str, width: usize) -> String {
    let mut out = String::with_capacity(text.len());
    for (number, line) in text.lines().enumerate() {
        if number > 0 {
            out.push('\n');
        }
        wrap_line(&mut out, line, width);
    }
    out
}

fn wrap_line(out: &mut String, line: &str, width: usize) {
    if measure_text_width(line) <= width {
        out.push_str(line);
        return;
    }
    let words = line.trim_start_matches(' ');
    let indent = (line.len() - words.len()).min(width / 2);
    let hanging = indent + HANGING_INDENT;
    out.push_str(&" ".repeat(indent));
    let (mut column, mut is_first) = (indent, true);
    for word in words_of(words) {
        let wide = measure_text_width(word);
        let space = usize::from(!is_first);
        if !is_first && column + space + wide > width {
            out.truncate(out.trim_end_matches(' ').len());
            out.push('\n');
            out.push_str(&" ".repeat(hanging));
            (column, is_first) = (hanging, true);
        }
        if !is_first {
            out.push(' ');
            column += 1;
        }
        column = push_word(out, word, column, hanging, width);
        is_first = false;
    }
    out.truncate(out.trim_end_matches(' ').len());
}

/// Returns the words of a line. A figure and its unit are one word.
fn words_of(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut start = 0;
    for (end, _) in line.match_indices(' ') {
        let word = &line[start..end];
        if word.parse::<f64>().is_err() {
            words.push(word);
            start = end + 1;
        }
    }
    words.push(&line[start..]);
    words
}

/// Appends a word at `column`, cut where it is wider than a line, and returns the column behind it.
fn push_word(
    out: &mut String,
    word: &str,
    mut column: usize,
    hanging: usize,
    width: usize,
) -> usize {
    for c in word.chars() {
        let wide = measure_text_width(c.encode_utf8(&mut [0; 4]));
        if column + wide > width {
            out.push('\n');
            out.push_str(&" ".repeat(hanging));
            column = hanging;
        }
        out.push(c);
        column += wide;
    }
    column
}

/// A table whose first row is its header, or which has none.
#[derive(Debug)]
pub(crate) struct Table<const COLUMNS: usize> {
    header: Option<[&'static str; COLUMNS]>,
    rows: Vec<[String; COLUMNS]>,
    /// The columns that may be left out, the least important one first.
    droppable: &'static [usize],
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    /// Returns a table with a header. Columns are left out in the order of `droppable` until it
    /// fits.
    pub(crate) const fn with_header(
        header: [&'static str; COLUMNS],
        rows: Vec<[String; COLUMNS]>,
        droppable: &'static [usize],
    ) -> Self {
        Self { header: Some(header), rows, droppable }
    }

    /// Returns a table without a header, which keeps all columns.
    pub(crate) const fn plain(rows: Vec<[String; COLUMNS]>) -> Self {
        Self { header: None, rows, droppable: &[] }
    }

    /// Returns its lines, each at most `width` columns wide and `indent` deep. Where no columns can
    /// be left out any more, each row is a stack of lines.
    pub(crate) fn lines(&self, indent: usize, width: usize) -> Vec<String> {
        let widths: [usize; COLUMNS] = std::array::from_fn(|column| self.width_of(column));
        let mut shown: Vec<_> = (0..COLUMNS).collect();
        let fits = |shown: &[usize]| {
            let cells: usize = shown.iter().map(|&column| widths[column]).sum();
            indent + cells + GAP.len() * shown.len().saturating_sub(1) <= width
        };
        for dropped in self.droppable {
            if fits(&shown) {
                break;
            }
            shown.retain(|column| column != dropped);
        }
        if !fits(&shown) {
            return self.stacked(&shown, indent, width);
        }
        let header = self.header.map(|header| header.map(str::to_owned));
        let line = |row: &[String; COLUMNS]| {
            let cells: Vec<_> = shown
                .iter()
                .map(|&column| pad_str(&row[column], widths[column], Alignment::Left, None))
                .collect();
            format!("{}{}", " ".repeat(indent), cells.join(GAP)).trim_end().to_owned()
        };
        header.iter().chain(&self.rows).map(line).collect()
    }

    fn width_of(&self, column: usize) -> usize {
        let header = self.header.map(|header| measure_text_width(header[column]));
        let cells = self.rows.iter().map(|row| measure_text_width(&row[column]));
        cells.chain(header).max().unwrap_or(0)
    }

    /// The first cell on a line of its own, and the others below it.
    fn stacked(&self, shown: &[usize], indent: usize, width: usize) -> Vec<String> {
        let mut lines = Vec::new();
        for row in &self.rows {
            for (place, &column) in shown.iter().enumerate() {
                let cell = &row[column];
                let line = match (place, self.header) {
                    (0, _) => format!("{}{cell}", " ".repeat(indent)),
                    (_, Some(header)) => {
                        let name = header[column].to_lowercase();
                        format!("{}{name}: {cell}", " ".repeat(indent + GAP.len()))
                    }
                    (_, None) => format!("{}{cell}", " ".repeat(indent + GAP.len())),
                };
                lines.extend(wrap(&line, width).lines().map(str::to_owned));
            }
        }
        lines
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Asserts that a text fits a terminal of the usual width.
    #[track_caller]
    pub(crate) fn assert_fits(text: &str) {
        for line in text.lines() {
            assert!(measure_text_width(line) <= WIDTH, "{}: {line}", measure_text_width(line));
        }
    }

    fn row(cells: [&str; 3]) -> [String; 3] {
        cells.map(str::to_owned)
    }

    #[test]
    fn a_line_breaks_at_a_space_and_goes_on_indented() {
        assert_eq!(wrap("  one two three", 15), "  one two three");
        assert_eq!(wrap("  one two three", 14), "  one two\n      three");
        assert_eq!(wrap("a\n\n  b  c", 8), "a\n\n  b  c");
    }

    #[test]
    fn a_figure_stays_with_its_unit() {
        assert_eq!(wrap("took 12.5 ms, max 3 ms", 12), "took\n    12.5 ms,\n    max 3 ms");
    }

    #[test]
    fn a_word_wider_than_a_line_is_cut() {
        let text = wrap(&format!("key {}", "k".repeat(90)), WIDTH);
        assert_fits(&text);
        let joined: String = text.chars().filter(|c| *c == 'k').collect();
        assert_eq!(joined.len(), 91);
        assert_eq!(text.lines().count(), 3);
    }

    #[test]
    fn a_table_leaves_out_columns_until_it_fits() {
        let rows = vec![row(["hub", "connected", "12 ms"])];
        let table = Table::with_header(["PEER", "STATE", "P99"], rows, &[2]);
        assert_eq!(table.lines(2, 24), ["  PEER  STATE      P99", "  hub   connected  12 ms"]);
        assert_eq!(table.lines(2, 23), ["  PEER  STATE", "  hub   connected"]);
    }

    #[test]
    fn a_table_that_cannot_fit_stacks_its_rows() {
        let rows = vec![row(["hub", "connected", "12 ms"])];
        let table = Table::with_header(["PEER", "STATE", "P99"], rows.clone(), &[2]);
        assert_eq!(table.lines(0, 14), ["hub", "  state:", "      connecte", "      d"]);
        assert_eq!(Table::plain(rows).lines(0, 20), ["hub", "  connected", "  12 ms"]);
    }
}
