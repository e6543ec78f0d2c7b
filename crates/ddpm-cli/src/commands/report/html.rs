//! The parts of a page.

use base64::{Engine, engine::general_purpose::STANDARD};

const PAGE: &str = include_str!("page.html");

/// A page under construction: its content is HTML, and each part escapes its text.
#[derive(Default)]
pub(super) struct Page {
    content: String,
}

impl Page {
    pub(super) fn heading(&mut self, text: &str) {
        self.content += &format!("<h2>{}</h2>\n", escaped(text));
    }

    pub(super) fn paragraph(&mut self, text: &str) {
        self.content += &format!("<p>{}</p>\n", escaped(text));
    }

    pub(super) fn code(&mut self, text: &str) {
        self.content += &format!("<pre>{}</pre>\n", escaped(text));
    }

    /// A table; the first row is its head unless it is empty.
    pub(super) fn table<const N: usize>(&mut self, head: [&str; N], rows: &[[String; N]]) {
        let line = |tag: &str, cells: [&str; N]| {
            let cells = cells.map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell)));
            format!("<tr>{}</tr>\n", cells.concat())
        };
        let head = if head.iter().all(|cell| cell.is_empty()) { String::new() } else { line("th", head) };
        let rows: String = rows.iter().map(|row| line("td", row.each_ref().map(String::as_str))).collect();
        self.content += &format!("<table>\n{head}{rows}</table>\n");
    }

    /// Plots side by side, the first one across the page.
    pub(super) fn plots(&mut self, svgs: &[String]) {
        let plots: String = svgs
            .iter()
            .enumerate()
            .map(|(at, svg)| {
                format!("<figure{}>{svg}</figure>\n", if at == 0 { " class=\"wide\"" } else { "" })
            })
            .collect();
        self.content += &format!("<div class=\"curves\">\n{plots}</div>\n");
    }

    pub(super) fn picture(&mut self, png: &[u8], caption: &str) {
        let (data, caption) = (STANDARD.encode(png), escaped(caption));
        self.content += &format!(
            "<figure><img src=\"data:image/png;base64,{data}\" alt=\"{caption}\"><figcaption>{caption}</figcaption></figure>\n"
        );
    }

    /// Pictures of which a slider chooses one; the last is shown first.
    pub(super) fn slider(&mut self, label: &str, pictures: &[(String, Vec<u8>)]) {
        let Some(last) = pictures.len().checked_sub(1) else { return };
        let images: String = pictures
            .iter()
            .enumerate()
            .map(|(at, (name, png))| {
                let (data, hidden) = (STANDARD.encode(png), if at < last { " hidden" } else { "" });
                format!("<img src=\"data:image/png;base64,{data}\" alt=\"{}\"{hidden}>\n", escaped(name))
            })
            .collect();
        let label = escaped(label);
        self.content += &format!(
            "<div class=\"slider\"><label for=\"epoch\">{label}</label>\
             <input id=\"epoch\" type=\"range\" min=\"0\" max=\"{last}\" value=\"{last}\"><output></output></div>\n\
             <figure id=\"previews\">\n{images}</figure>\n"
        );
    }

    /// The whole file.
    pub(super) fn finish(self, title: &str, subtitle: &str) -> String {
        // The content last: it may hold any text.
        let page = PAGE.replace("{{title}}", &escaped(title)).replace("{{subtitle}}", &escaped(subtitle));
        page.replacen("{{content}}", &self.content, 1)
    }
}

/// Text that HTML shows as it is, also in an attribute.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            // Shown as a text of its own, which cannot be mistaken for a place of the template.
            '{' => escaped += "&#123;",
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_shown_as_it_is_and_no_text_is_markup() {
        let hostile = "<script>\"x\" & {{content}}";
        let mut page = Page::default();
        page.heading(hostile);
        page.code(hostile);
        page.table(["", ""], &[[hostile.to_owned(), hostile.to_owned()]]);
        page.slider(hostile, &[(hostile.to_owned(), vec![1])]);
        let html = page.finish(hostile, hostile);
        // The script of the page itself.
        assert_eq!(html.matches("<script>").count(), 1);
        assert!(!html.contains("{{"), "{html}");
        let expected = "&lt;script&gt;&quot;x&quot; &amp; &#123;&#123;content}}";
        assert_eq!(html.matches(expected).count(), 9, "{html}");
    }

    #[test]
    fn the_page_fetches_nothing() {
        let html = Page::default().finish("t", "s");
        assert!(!html.contains("http:") && !html.contains("https:") && !html.contains("<link"), "{html}");
        assert!(html.contains("default-src 'none'"));
    }
}
