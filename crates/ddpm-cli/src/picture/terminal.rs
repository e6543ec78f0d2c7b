//! Pictures as text: a character shows two pixels, one above the other.

use super::Column;

/// The upper half of a character's place.
const HALF: &str = "▀";
/// From black to white, without colours.
const SHADES: [char; 5] = [' ', '░', '▒', '▓', '█'];

/// Columns of images of `rows` × `cols` pixels, each column under its label. The images have half their size if all
/// columns would not fit in `width` characters otherwise, and further columns follow below. `colours` are the 24 grey
/// levels of a terminal with 256 colours.
pub(crate) fn text(columns: &[Column<'_>], [rows, cols]: [usize; 2], width: usize, colours: bool) -> String {
    let factor = if columns.len() * (cols + 1) <= width { 1 } else { 2 };
    let across = cols.div_ceil(factor);
    let per_band = (width + 1).div_euclid(across + 1).max(1);
    let mut text = String::new();
    for band in columns.chunks(per_band) {
        if band.iter().any(|column| !column.label.is_empty()) {
            let labels = band.iter().map(|column| format!("{:^across$}", column.label));
            text += labels.collect::<Vec<_>>().join(" ").trim_end();
            text.push('\n');
        }
        for row in 0..band.iter().map(|column| column.tiles.len()).max().unwrap_or(0) {
            for y in (0..rows.div_ceil(factor)).step_by(2) {
                let lines = band.iter().map(|column| {
                    let tile = column.tiles.get(row);
                    let level = |x, y| tile.and_then(|tile| mean(tile, [rows, cols], factor, [x, y]));
                    (0..across)
                        .map(|x| character([level(x, y), level(x, y + 1)], colours))
                        .collect::<String>()
                        + if colours { "\u{1b}[0m" } else { "" }
                });
                text += lines.collect::<Vec<_>>().join(" ").trim_end_matches(' ');
                text.push('\n');
            }
            text.push('\n');
        }
    }
    text.truncate(text.trim_end_matches('\n').len());
    text
}

/// The mean grey level of a square of pixels; `None` outside of the image.
fn mean(tile: &[u8], [rows, cols]: [usize; 2], factor: usize, [x, y]: [usize; 2]) -> Option<u8> {
    let ys = y * factor..((y + 1) * factor).min(rows);
    let xs = x * factor..((x + 1) * factor).min(cols);
    let levels = ys.flat_map(|y| xs.clone().map(move |x| usize::from(tile[y * cols + x])));
    let (count, sum) = levels.fold((0, 0), |(count, sum), level| (count + 1, sum + level));
    sum.checked_div_euclid(count).and_then(|mean| u8::try_from(mean).ok())
}

/// A character for a pixel and the one below it. A pixel outside of the image is empty.
fn character([upper, lower]: [Option<u8>; 2], colours: bool) -> String {
    // The colours 232 to 255 are grey levels from 8 to 238.
    let colour = |level: u8| 232 + (u16::from(level) * 23 + 127).div_euclid(255);
    match (upper, lower) {
        (None, _) => " ".to_owned(),
        (Some(upper), Some(lower)) if colours => {
            format!("\u{1b}[38;5;{};48;5;{}m{HALF}", colour(upper), colour(lower))
        }
        (Some(upper), None) if colours => format!("\u{1b}[0;38;5;{}m{HALF}", colour(upper)),
        (Some(upper), lower) => {
            let mean = (usize::from(upper) + usize::from(lower.unwrap_or(upper))).div_euclid(2);
            SHADES[(mean * 4 + 127).div_euclid(255)].to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column<'a>(label: &str, tiles: &[&'a [u8]]) -> Column<'a> {
        Column { label: label.to_owned(), tiles: tiles.to_vec() }
    }

    #[test]
    fn two_pixels_are_a_character_and_columns_stand_side_by_side() {
        let (left, right) = ([0, 255, 0, 255], [255, 255, 0, 0]);
        let columns = [column("3", &[&left, &left]), column("7", &[&right])];
        assert_eq!(text(&columns, [2, 2], 80, false), "3  7\n █ ▒▒\n\n █");
        let coloured = text(&columns[1..], [2, 2], 80, true);
        assert_eq!(coloured, "7\n\u{1b}[38;5;255;48;5;232m▀\u{1b}[38;5;255;48;5;232m▀\u{1b}[0m");
    }

    #[test]
    fn images_that_do_not_fit_are_halved_and_then_arranged_in_bands() {
        let tile = [255; 16];
        let columns = ["a", "b", "c"].map(|label| column(label, &[&tile]));
        assert_eq!(
            text(&columns, [4, 4], 15, false),
            "a    b    c\n████ ████ ████\n████ ████ ████".replace("a    b    c", " a    b    c")
        );
        assert_eq!(text(&columns, [4, 4], 8, false), "a  b  c\n██ ██ ██");
        assert_eq!(text(&columns, [4, 4], 5, false), "a  b\n██ ██\n\nc\n██");
        assert_eq!(text(&columns, [4, 4], 1, false).lines().count(), 8);
    }

    #[test]
    fn an_odd_number_of_lines_ends_in_half_a_character() {
        let tile = [255; 3];
        assert_eq!(text(&[column("", &[&tile])], [3, 1], 80, false), "█\n█");
        let coloured = text(&[column("", &[&tile])], [3, 1], 80, true);
        assert!(coloured.ends_with("\u{1b}[0;38;5;255m▀\u{1b}[0m"), "{coloured:?}");
    }
}
