//! Bars with whiskers, as SVG: text and rectangles, so there is no need of a library that draws.

use std::fmt::Write as _;

use super::{Summary, summary::three_figures};

/// One bar.
#[derive(Clone, Debug)]
pub struct Bar {
    /// What was measured.
    pub label: String,
    /// Its figure.
    pub summary: Summary,
    /// Whether it is the one that the others are compared with.
    pub own: bool,
}

/// Bars that share a scale.
#[derive(Clone, Debug)]
pub struct Panel {
    /// What the scale is of, with its unit.
    pub title: String,
    /// From top to bottom.
    pub bars: Vec<Bar>,
}

/// Panels under a title, two in a row.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Above all.
    pub title: String,
    /// Below the title: what is better, what the whiskers are.
    pub note: String,
    /// In order.
    pub panels: Vec<Panel>,
}

const COLUMNS: usize = 2;
const PANEL_WIDTH: usize = 470;
const LABEL_WIDTH: usize = 110;
const BAR_WIDTH: usize = 240;
const ROW: usize = 22;
const PANEL_HEAD: usize = 28;
const PANEL_FOOT: usize = 20;
const HEAD: usize = 64;
const MARGIN: usize = 16;

impl Chart {
    /// The picture.
    #[must_use]
    pub fn to_svg(&self) -> String {
        let mut body = String::new();
        let mut top = HEAD;
        for row in self.panels.chunks(COLUMNS) {
            for (column, panel) in row.iter().enumerate() {
                panel.draw(&mut body, MARGIN + column * PANEL_WIDTH, top);
            }
            top += row.iter().map(Panel::height).max().unwrap_or_default();
        }
        let (width, height) = (2 * MARGIN + COLUMNS * PANEL_WIDTH, top + MARGIN);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n\
             <text x=\"{MARGIN}\" y=\"26\" font-size=\"17\" font-weight=\"bold\">{}</text>\n\
             <text x=\"{MARGIN}\" y=\"46\" fill=\"#555\">{}</text>\n{body}</svg>\n",
            escape(&self.title),
            escape(&self.note),
        )
    }
}

impl Panel {
    fn height(&self) -> usize {
        PANEL_HEAD + self.bars.len() * ROW + PANEL_FOOT
    }

    fn draw(&self, body: &mut String, left: usize, top: usize) {
        let greatest = self
            .bars
            .iter()
            .map(|bar| bar.summary.greatest)
            .fold(0.0, f64::max);
        line(
            body,
            &format!(
                "<text x=\"{left}\" y=\"{}\" font-weight=\"bold\">{}</text>",
                top + 16,
                escape(&self.title)
            ),
        );
        for (index, bar) in self.bars.iter().enumerate() {
            bar.draw(body, left, top + PANEL_HEAD + index * ROW, greatest);
        }
    }
}

impl Bar {
    fn draw(&self, body: &mut String, left: usize, top: usize, greatest: f64) {
        let scale = |value: f64| {
            let share = if greatest > 0.0 {
                value / greatest
            } else {
                0.0
            };
            share * BAR_WIDTH as f64
        };
        let start = left + LABEL_WIDTH;
        let Summary {
            median,
            least,
            greatest: most,
        } = self.summary;
        let colour = if self.own { "#2266aa" } else { "#b8c4d0" };
        let (text, middle) = (top + 14, top + 9);
        let (low, high) = (start as f64 + scale(least), start as f64 + scale(most));
        line(
            body,
            &format!(
                "<text x=\"{}\" y=\"{text}\" text-anchor=\"end\">{}</text>",
                start - 6,
                escape(&self.label)
            ),
        );
        line(
            body,
            &format!(
                "<rect x=\"{start}\" y=\"{}\" width=\"{:.1}\" height=\"14\" fill=\"{colour}\"/>",
                top + 2,
                scale(median)
            ),
        );
        line(
            body,
            &format!(
                "<path d=\"M{low:.1} {middle}H{high:.1}M{low:.1} {}v8M{high:.1} {}v8\" \
                 stroke=\"#222\" fill=\"none\"/>",
                middle - 4,
                middle - 4
            ),
        );
        line(
            body,
            &format!(
                "<text x=\"{:.1}\" y=\"{text}\" fill=\"#222\">{}</text>",
                high + 6.0,
                three_figures(median)
            ),
        );
    }
}

fn line(body: &mut String, text: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(body, "{text}");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_share() {
        let bar = |label: &str, values: [f64; 3]| Bar {
            label: label.into(),
            summary: Summary::of(values).unwrap(),
            own: label == "own",
        };
        let svg = Chart {
            title: "a & b".into(),
            note: "less is better".into(),
            panels: vec![Panel {
                title: "<time>".into(),
                bars: vec![
                    bar("own", [4.0, 5.0, 6.0]),
                    bar("other", [10.0, 10.0, 10.0]),
                ],
            }],
        }
        .to_svg();
        assert!(svg.contains("a &amp; b") && svg.contains("&lt;time&gt;"));
        // Half and all of the width, in the colours of the own and of the other.
        assert!(
            svg.contains("width=\"120.0\" height=\"14\" fill=\"#2266aa\""),
            "{svg}"
        );
        assert!(
            svg.contains("width=\"240.0\" height=\"14\" fill=\"#b8c4d0\""),
            "{svg}"
        );
        assert!(svg.ends_with("</svg>\n"));
    }
}
