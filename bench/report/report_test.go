package report

import (
	"math"
	"testing"
)

func TestSummarise(t *testing.T) {
	tests := []struct {
		name    string
		samples []float64
		want    Stat
	}{
		{"one", []float64{7}, Stat{7, 7, 7, 1}},
		{"odd", []float64{9, 1, 5}, Stat{5, 1, 9, 3}},
		{"even", []float64{4, 1, 2, 10}, Stat{3, 1, 10, 4}},
		{"equal", []float64{2, 2}, Stat{2, 2, 2, 2}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := append([]float64(nil), tt.samples...)
			if got := Summarise(tt.samples); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			for i, v := range before {
				if tt.samples[i] != v {
					t.Fatalf("the samples are %v now, they were %v", tt.samples, before)
				}
			}
		})
	}
	if got := Summarise(nil); got.N != 0 || !math.IsNaN(got.Median) {
		t.Errorf("of nothing: %+v", got)
	}
}

func TestRatio(t *testing.T) {
	// The second round was on a busy machine, for both.
	if got, want := Ratio([]float64{20, 2, 30}, []float64{10, 1, 10}), (Stat{2, 2, 3, 3}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := Ratio([]float64{20, 2}, []float64{10}); got.N != 1 || got.Median != 2 {
		t.Errorf("with a round missing: %+v", got)
	}
}

func TestPercentile(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i)
	}
	for _, tt := range []struct{ p, want float64 }{{0, 1}, {0.5, 50}, {0.99, 99}, {0.991, 100}, {1, 100}} {
		if got := Percentile(hundred, tt.p); got != tt.want {
			t.Errorf("p%v = %v, want %v", 100*tt.p, got, tt.want)
		}
	}
	if got := Percentile([]float64{3}, 0.99); got != 3 {
		t.Errorf("of one: %v", got)
	}
	if got := Percentile(nil, 0.5); !math.IsNaN(got) {
		t.Errorf("of nothing: %v", got)
	}
}

func TestNumber(t *testing.T) {
	for _, tt := range []struct {
		v    float64
		want string
	}{
		{0, "0"}, {0.001, "0.00"}, {1.234, "1.23"}, {9.994, "9.99"}, {9.996, "10.0"}, {10, "10"}, {2, "2"}, {12.34, "12.3"}, {99.96, "100"},
		{999.5, "1,000"}, {12345.6, "12,346"}, {1234567, "1,234,567"}, {-1234, "-1,234"}, {math.NaN(), "–"}, {math.Inf(1), "–"},
	} {
		if got := Number(tt.v); got != tt.want {
			t.Errorf("%v is written %q, want %q", tt.v, got, tt.want)
		}
	}
}

func TestStat_String(t *testing.T) {
	for _, tt := range []struct {
		samples []float64
		want    string
	}{{nil, "–"}, {[]float64{12}, "12"}, {[]float64{3000, 1000, 2000}, "2,000 (1,000 to 3,000)"}} {
		if got := Summarise(tt.samples).String(); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.samples, got, tt.want)
		}
	}
}

func TestRun_Scenario(t *testing.T) {
	c := &Contender{Key: "ours"}
	c.Add(Sample{"rate": 1})
	c.Add(Sample{"rate": 3})
	r := Run{Scenarios: []*Scenario{{Name: "drain", Contenders: []*Contender{c}}}}
	if got := r.Scenario("drain").Contender("ours").Stat("rate").Median; got != 2 {
		t.Errorf("median %v, want 2", got)
	}
	if got := r.Scenario("drain").Contender("nobody").Stat("rate"); got.N != 0 {
		t.Errorf("of nobody: %+v", got)
	}
	if got := r.Scenario("nothing").Contender("ours").Stat("rate"); got.N != 0 {
		t.Errorf("of nothing: %+v", got)
	}
}
