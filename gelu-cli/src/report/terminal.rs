use std::{ffi::OsString, fmt::Write};

use gelu_io::data::Images;

/// How a terminal shows shades.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ink {
    /// Half-block characters in 24-bit grey: two pixels a character.
    Color,
    /// ASCII characters from light to dark, for files, pipes and `NO_COLOR`.
    Ascii,
}

impl Ink {
    /// What suits an output that is a terminal or not, by the variables `NO_COLOR` and `TERM`.
    pub(crate) fn detect(is_terminal: bool) -> Self {
        Self::with_environment(is_terminal, |name| std::env::var_os(name))
    }

    fn with_environment(is_terminal: bool, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let no_color = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = variable("TERM").is_some_and(|value| value == "dumb");
        if is_terminal && !no_color && !dumb { Self::Color } else { Self::Ascii }
    }
}

/// Where pictures are drawn as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Canvas {
    /// How shades are shown.
    pub(crate) ink: Ink,
    /// Characters in a line; pictures stand side by side as far as they fit.
    pub(crate) columns: usize,
}

impl Canvas {
    /// The pictures as lines of text, `captions[i]` under picture `i`.
    pub(crate) fn draw(&self, images: &Images, captions: &[String]) -> String {
        let [_, width] = images.size();
        let per_line = ((self.columns + 1) / (width + 1)).max(1);
        let pictures: Vec<&[u8]> = images.iter().collect();
        let mut text = String::new();
        for (block, pictures) in pictures.chunks(per_line).enumerate() {
            self.draw_block(&mut text, pictures, width);
            let captions = captions.iter().skip(block * per_line).take(pictures.len());
            let line: Vec<String> =
                captions.map(|caption| format!("{:^width$.width$}", caption.as_str())).collect();
            if !line.is_empty() {
                text.push_str(line.join(" ").trim_end());
                text.push('\n');
            }
        }
        text
    }

    /// Pictures side by side, two rows of pixels a line.
    fn draw_block(&self, text: &mut String, pictures: &[&[u8]], width: usize) {
        let rows = pictures.first().map_or(0, |picture| picture.len() / width);
        for upper in (0..rows).step_by(2) {
            let mut line = String::new();
            for (i, picture) in pictures.iter().enumerate() {
                if i > 0 {
                    line.push(' ');
                }
                for column in 0..width {
                    let pixel = |row: usize| picture.get(row * width + column).copied().unwrap_or(0);
                    self.cell(&mut line, [pixel(upper), pixel(upper + 1)]);
                }
                if self.ink == Ink::Color {
                    line.push_str("\x1b[0m");
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }

    /// The character for two pixels, one above the other.
    fn cell(&self, line: &mut String, [upper, lower]: [u8; 2]) {
        const RAMP: &[u8; 10] = b" .:-=+*#%@";
        match self.ink {
            Ink::Color => {
                // Writing to a String cannot fail.
                let _ =
                    write!(line, "\x1b[38;2;{upper};{upper};{upper};48;2;{lower};{lower};{lower}m\u{2580}");
            }
            Ink::Ascii => {
                let mean = (usize::from(upper) + usize::from(lower)) / 2;
                line.push(char::from(RAMP[(mean * (RAMP.len() - 1) + 127) / 255]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Images {
        Images::new([3, 4], (0..24).map(|i| if i % 5 == 0 { 255 } else { 0 }).collect()).unwrap()
    }

    #[test]
    fn ascii_stands_side_by_side_as_far_as_it_fits() {
        let captions = ["one".to_owned(), "a long two".to_owned()];
        let wide = Canvas { ink: Ink::Ascii, columns: 80 }.draw(&two(), &captions);
        assert_eq!(wide, "==      =\n  =  =\none  a lo\n");
        let narrow = Canvas { ink: Ink::Ascii, columns: 0 }.draw(&two(), &[]);
        assert_eq!(narrow, "==\n  =\n   =\n=\n");
    }

    #[test]
    fn color_shows_two_pixels_a_character() {
        let images = Images::new([2, 1], vec![255, 7]).unwrap();
        let text = Canvas { ink: Ink::Color, columns: 80 }.draw(&images, &[]);
        assert_eq!(text, "\x1b[38;2;255;255;255;48;2;7;7;7m\u{2580}\x1b[0m\n");
    }

    #[test]
    fn color_is_for_terminals_that_want_it() {
        let with = |pairs: &'static [(&str, &str)], is_terminal| {
            Ink::with_environment(is_terminal, |name| {
                pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
            })
        };
        assert_eq!(with(&[("TERM", "xterm")], true), Ink::Color);
        assert_eq!(with(&[("NO_COLOR", "")], true), Ink::Color);
        assert_eq!(with(&[("NO_COLOR", "1")], true), Ink::Ascii);
        assert_eq!(with(&[("TERM", "dumb")], true), Ink::Ascii);
        assert_eq!(with(&[], false), Ink::Ascii);
    }
}
