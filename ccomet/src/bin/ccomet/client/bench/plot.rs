//! A plot of latency percentiles over time, as SVG.

use std::path::Path;

use plotters::prelude::{
    ChartBuilder, IntoDrawingArea, IntoLogRange, LineSeries, PathElement, RGBColor, SVGBackend, SeriesLabelPosition,
    WHITE,
};

use super::report::{PERCENTILES, Results};
use crate::client::Outcome;

const COLOURS: [RGBColor; 5] = [
    RGBColor(31, 119, 180),
    RGBColor(44, 160, 44),
    RGBColor(255, 127, 14),
    RGBColor(214, 39, 40),
    RGBColor(148, 103, 189),
];

/// Writes the plot. The axis of latencies is logarithmic.
pub(super) fn draw(path: &Path, results: &Results) -> Outcome {
    let series = results.series();
    let Some((end, _)) = series.last() else {
        eprintln!("ccomet: no message was delivered; {} is not written", path.display());
        return Ok(());
    };
    let all = || series.iter().flat_map(|(_, ms)| ms.iter().copied());
    let (low, high) = (all().fold(f64::INFINITY, f64::min).max(0.001), all().fold(0.001, f64::max));
    let failed = |error: String| format!("cannot write {}: {error}", path.display());
    let area = SVGBackend::new(path, (960, 540)).into_drawing_area();
    area.fill(&WHITE).map_err(|error| failed(error.to_string()))?;
    let mut chart = ChartBuilder::on(&area)
        .caption(results.title(), ("sans-serif", 18))
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..*end, (low / 1.5..high * 1.5).log_scale())
        .map_err(|error| failed(error.to_string()))?;
    let mut mesh = chart.configure_mesh();
    mesh.max_light_lines(1).x_desc("seconds").y_desc("latency, ms").y_label_formatter(&|ms| format!("{ms}"));
    mesh.draw().map_err(|error| failed(error.to_string()))?;
    for (index, ((name, _), colour)) in PERCENTILES.iter().zip(COLOURS).enumerate() {
        let points = series.iter().filter_map(|(at, ms)| Some((*at, ms.get(index)?.max(0.001))));
        let unit = if *name == "max" { "" } else { " %" };
        chart
            .draw_series(LineSeries::new(points, colour))
            .map_err(|error| failed(error.to_string()))?
            .label(format!("{name}{unit}"))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
    }
    let mut legend = chart.configure_series_labels();
    legend.position(SeriesLabelPosition::UpperRight).background_style(WHITE);
    legend.draw().map_err(|error| failed(error.to_string()))?;
    area.present().map_err(|error| failed(error.to_string()).into())
}
