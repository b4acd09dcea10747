//! CSV with a header (RFC 4180): each row becomes a JSON object of strings, which is a record like any
//! other.

use std::io::Read as _;

use super::Mapping;
use crate::cli::output::count_text;
use tailmark_record::excerpt;
use tailmark_record::json::write_string;

/// What the header says.
#[derive(Debug)]
pub(super) struct Header {
    names: Vec<String>,
    delimiter: u8,
    mappings: Vec<Mapping>,
}

/// Reads what parts columns.
pub(in crate::cli) fn parse_delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        _ if text == "tab" || text == "\\t" => Ok(b'\t'),
        [c] if c.is_ascii() && !matches!(c, b'"' | b'\n' | b'\r') => Ok(*c),
        _ => Err("expected one character, or `tab`".to_owned()),
    }
}

impl Header {
    /// Reads the first row. Where nobody said what parts columns, it is a comma. What is to be taken out of rows must
    /// be there.
    pub(super) fn parse(
        row: &[u8],
        said: Option<u8>,
        mappings: &[Mapping],
    ) -> Result<Header, String> {
        let delimiter = said.unwrap_or(b',');
        let names = fields(row, delimiter)?;
        if let ([name], None) = (&*names, said)
            && let Some(other) = name.chars().find(|c| matches!(c, ';' | '\t' | '|'))
        {
            let other = if other == '\t' { "tab".to_owned() } else { format!("'{other}'") };
            let name = excerpt(name);
            return Err(format!(
                "`{name}` would be the one column there is: --delimiter {other} parts it (--delimiter , \
                 leaves it as it is)"
            ));
        }
        for (at, name) in names.iter().enumerate() {
            if name.is_empty() || names[..at].contains(name) {
                return Err(format!("column {} of the header has no name of its own", at + 1));
            }
        }
        let mappings = mappings.iter().map(|it| it.of_column(&names)).collect::<Result<_, _>>()?;
        Ok(Header { names, delimiter, mappings })
    }

    /// What is to be taken out of a row.
    pub(super) fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    /// A row as a JSON object.
    pub(super) fn record(&self, row: &[u8]) -> Result<String, String> {
        let values = fields(row, self.delimiter)?;
        if values.len() != self.names.len() {
            let (found, wanted) = (values.len(), self.names.len());
            let found = count_text(found as u64, "column");
            return Err(format!("has {found}, and the header {wanted}"));
        }
        let mut out = vec![b'{'];
        for (at, (name, value)) in self.names.iter().zip(&values).enumerate() {
            if at > 0 {
                out.push(b',');
            }
            write_string(&mut out, name);
            out.push(b':');
            write_string(&mut out, value);
        }
        out.push(b'}');
        String::from_utf8(out).map_err(|error| error.to_string())
    }
}

fn fields(row: &[u8], delimiter: u8) -> Result<Vec<String>, String> {
    // What stands behind the row tells whether it ends where it should.
    let with_next = row.chain(&b"\nx"[..]);
    let mut reader = csv::ReaderBuilder::new();
    let mut reader = reader.has_headers(false).delimiter(delimiter).from_reader(with_next);
    let mut record = csv::StringRecord::new();
    let read = reader.read_record(&mut record);
    if read.is_ok() && reader.position().byte() != row.len() as u64 + 1 {
        let quotes = row.iter().filter(|&&c| c == b'"').count();
        return Err(match quotes.is_multiple_of(2) {
            false => "a quote that nothing closes: \"\" stands for one within quotes".to_owned(),
            true => "a quote or a carriage return out of place".to_owned(),
        });
    }
    match read {
        Ok(true) => Ok(record.iter().map(str::to_owned).collect()),
        Ok(false) => Err("is empty".to_owned()),
        Err(error) => match error.kind() {
            csv::ErrorKind::Utf8 { .. } => Err("is not UTF-8".to_owned()),
            _ => Err(error.to_string()),
        },
    }
}

/// Whether a line opens a quote that it does not close, or closes one that was open.
pub(super) fn turns(line: &[u8]) -> bool {
    line.iter().filter(|&&c| c == b'"').count() % 2 == 1
}
