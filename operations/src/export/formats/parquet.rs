//! Apache Parquet: one column of basis points per category, as unsigned 16-bit integers.
//!
//! The summary is in the file's key-value metadata under `allocation`.

use std::io;
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as PhysicalType, ZstdLevel};
use parquet::data_type::Int32Type;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;
use schemas::export::ExportSummary;

use super::RowWriter;
use crate::export::output_file::OutputFile;

/// Rows per row group, buffered in memory: about 17 MB with 64 categories.
const ROW_GROUP_ROWS: usize = 65_536;

pub(super) struct ParquetWriter {
    writer: SerializedFileWriter<OutputFile>,
    /// Values of the next row group.
    columns: Vec<Vec<i32>>,
}

impl ParquetWriter {
    pub(super) fn begin(output: OutputFile, summary: &ExportSummary) -> io::Result<Self> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true)
            .build();
        let writer = schema(summary)
            .and_then(|schema| SerializedFileWriter::new(output, schema, Arc::new(properties)))
            .map_err(io::Error::other)?;
        let columns = summary.categories.iter().map(|_| Vec::new()).collect();
        Ok(Self { writer, columns })
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        let mut group = self.writer.next_row_group()?;
        for values in &mut self.columns {
            if let Some(mut column) = group.next_column()? {
                column.typed::<Int32Type>().write_batch(values, None, None)?;
                column.close()?;
            }
            values.clear();
        }
        group.close()?;
        Ok(())
    }

    fn finish_file(mut self, summary: &ExportSummary) -> Result<OutputFile, ParquetError> {
        if self.columns.first().is_some_and(|column| !column.is_empty()) {
            self.write_group()?;
        }
        let summary = serde_json::to_string(summary)
            .map_err(|error| ParquetError::External(Box::new(error)))?;
        let summary = KeyValue::new("allocation".to_owned(), summary);
        self.writer.append_key_value_metadata(summary);
        self.writer.into_inner()
    }
}

impl RowWriter for ParquetWriter {
    fn write_row(&mut self, basis_points: &[u16]) -> io::Result<()> {
        for (column, share) in self.columns.iter_mut().zip(basis_points) {
            column.push(i32::from(*share));
        }
        if self.columns.first().is_some_and(|column| column.len() >= ROW_GROUP_ROWS) {
            self.write_group().map_err(io::Error::other)?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>, summary: &ExportSummary) -> io::Result<OutputFile> {
        self.finish_file(summary).map_err(io::Error::other)
    }
}

fn schema(summary: &ExportSummary) -> Result<Arc<Type>, ParquetError> {
    let column = |id: &str| {
        Type::primitive_type_builder(id, PhysicalType::INT32)
            .with_repetition(Repetition::REQUIRED)
            .with_logical_type(Some(LogicalType::integer(16, false)))
            .build()
            .map(Arc::new)
    };
    let columns = summary.categories.iter().map(|category| column(&category.id));
    let columns = columns.collect::<Result<_, _>>()?;
    Ok(Arc::new(Type::group_type_builder("allocations").with_fields(columns).build()?))
}
