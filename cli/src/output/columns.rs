//! Columns as Docker prints them: three spaces apart, the last one as long as it is.

/// Space between two columns.
const GAP: usize = 3;

/// Headers and lines as one text.
pub(crate) fn columns(headers: &[&str], rows: &[Vec<String>]) -> String {
    let width = |text: &str| text.chars().count();
    let widths: Vec<usize> = headers
        .iter()
        .enumerate()
        .map(|(column, header)| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells
                .map(|cell| width(cell))
                .chain([width(header)])
                .max()
                .unwrap_or(0)
        })
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, column) in cells.zip(&widths) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', column + GAP - width(cell)));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    };
    let mut text = line(&mut headers.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_line_up() {
        let rows = vec![
            vec!["1".to_owned(), "ä".to_owned(), "x".to_owned()],
            vec!["12345".to_owned(), String::new(), String::new()],
        ];
        assert_eq!(
            columns(&["ID", "NAME", "PORTS"], &rows),
            "ID      NAME   PORTS\n1       ä      x\n12345\n"
        );
    }
}
