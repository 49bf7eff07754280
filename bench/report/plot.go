//nolint:misspell // packages and fields have American names
package report

import (
	"bytes"
	"image/color"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// The colours have about the same contrast to a white page and to a dark one, and there
// is no ground: a plot shows in both.
var (
	inkColour    = color.NRGBA{R: 0x76, G: 0x7e, B: 0x89, A: 0xff}
	gridColour   = color.NRGBA{R: 0x76, G: 0x7e, B: 0x89, A: 0x60}
	oursColour   = color.NRGBA{R: 0x1f, G: 0x8a, B: 0x70, A: 0xff}
	othersColour = color.NRGBA{R: 0x8c, G: 0x95, B: 0xa8, A: 0xff}
)

// fonts have letters of the same width, but for the last.
const fonts = "Liberation Sans, Arial, Helvetica, sans-serif"

// WritePlots draws each scenario that has something to draw into dir.
func WritePlots(dir string, r *Run) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // pages are for everybody
		return err
	}
	for _, s := range r.Scenarios {
		if len(s.measured()) == 0 {
			continue
		}
		svg, err := s.plot()
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, s.Name+".svg"), svg, 0o644); err != nil { //nolint:gosec // pages are for everybody
			return err
		}
	}
	return nil
}

// measured are the contenders with a value of the first metric.
func (s *Scenario) measured() []*Contender {
	return slices.DeleteFunc(slices.Clone(s.Contenders), func(c *Contender) bool { return c.Stat(s.Metrics[0].Key).N == 0 })
}

// plot draws the first metric: a bar for each contender from the top, with the range
// of its rounds.
func (s *Scenario) plot() ([]byte, error) {
	contenders := s.measured()
	slices.Reverse(contenders) // the vertical axis goes upwards
	p := plot.New()
	p.BackgroundColor = nil // the page's
	p.X.Label.Text = s.Metrics[0].Title
	p.X.Min = 0
	p.X.Tick.Marker = ticks{}
	for _, style := range []*draw.TextStyle{&p.X.Label.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label} {
		style.Color = inkColour
		style.Font.Variant = "Sans"
	}
	for _, line := range []*draw.LineStyle{&p.X.LineStyle, &p.X.Tick.LineStyle} {
		line.Color = inkColour
	}
	grid := plotter.NewGrid()
	grid.Horizontal.Color = nil
	grid.Vertical.Color = gridColour
	p.Add(grid)

	var names []string
	for i, c := range contenders {
		stat := c.Stat(s.Metrics[0].Key)
		// The reader's font may be wider than the one that the room is reckoned with.
		names = append(names, c.Name+strings.Repeat(" ", 2+len(c.Name)/3))
		if err := addBar(p, float64(i), stat, c.Ours); err != nil {
			return nil, err
		}
	}
	p.NominalY(names...)
	p.Y.Width = 0
	p.Y.Tick.Width = 0
	p.Y.Min, p.Y.Max = -0.6, float64(len(contenders))-0.4
	p.X.Max *= 1.03
	height := vg.Points(float64(50 + 24*len(contenders)))
	canvas := vgsvg.New(vg.Points(620), height)
	p.Draw(draw.New(canvas))
	var out bytes.Buffer
	_, err := canvas.WriteTo(&out)
	return bytes.ReplaceAll(out.Bytes(), []byte("font-family:sans-serif"), []byte("font-family:"+fonts)), err
}

func addBar(p *plot.Plot, at float64, stat Stat, ours bool) error {
	bar, err := plotter.NewBarChart(plotter.Values{stat.Median}, vg.Points(14))
	if err != nil {
		return err
	}
	bar.Horizontal, bar.XMin, bar.LineStyle.Width = true, at, 0
	bar.Color = othersColour
	if ours {
		bar.Color = oursColour
	}
	p.Add(bar)
	spread, err := plotter.NewXErrorBars(spread{at, stat})
	if err != nil {
		return err
	}
	spread.Color, spread.Width = inkColour, vg.Points(1.2)
	p.Add(spread)
	return nil
}

// spread is a stat as the plotter wants it: a point with errors to both sides.
type spread struct {
	at   float64
	stat Stat
}

func (spread) Len() int                { return 1 }
func (s spread) XY(int) (x, y float64) { return s.stat.Median, s.at }
func (s spread) XError(int) (low, high float64) {
	return s.stat.Median - s.stat.Min, s.stat.Max - s.stat.Median
}

// ticks are the plotter's own, with thousands parted.
type ticks struct{}

func (ticks) Ticks(low, high float64) []plot.Tick {
	all := plot.DefaultTicks{}.Ticks(low, high)
	for i := range all {
		if all[i].Label != "" {
			all[i].Label = tickLabel(all[i].Value)
		}
	}
	return all
}

func tickLabel(v float64) string {
	if v == 0 || v >= 100 {
		return Number(v)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}
