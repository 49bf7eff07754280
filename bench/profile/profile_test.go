package profile

import (
	"bytes"
	"math"
	"testing"

	"github.com/google/pprof/profile"
)

const (
	goRedis = "github.com/redis/go-redis/v9.(*baseClient).process"
	write   = "internal/runtime/syscall/linux.Syscall6"
	handler = "github.com/mailpouch/mailpouch/tasks.(*Worker).ProcessTask"
	asynqRB = "github.com/hibiken/asynq/internal/rdb.(*RDB).Dequeue"
)

func TestPartOf(t *testing.T) {
	tests := []struct {
		name  string
		stack []frame
		want  string
	}{
		{"redis below asynq", []frame{{function: write}, {function: goRedis}, {function: asynqRB}}, "Redis's client"},
		{"asynq itself", []frame{{function: "runtime.mallocgc"}, {function: asynqRB}}, "asynq"},
		{"protobuf is asynq's", []frame{{function: "google.golang.org/protobuf/proto.Unmarshal"}, {function: asynqRB}}, "asynq"},
		{"JSON below the worker", []frame{{function: "encoding/json.(*decodeState).object"}, {function: handler}, {function: "github.com/hibiken/asynq.(*processor).exec"}}, "JSON"},
		{"our own JSON", []frame{{"github.com/mailpouch/mailpouch/mailer.(*EmailMessage).UnmarshalJSON", "/src/mailer/jsondecode.go"}, {function: handler}}, "JSON"},
		{"payload", []frame{{"github.com/mailpouch/mailpouch/internal/wire.Decode", "/src/internal/wire/payload.go"}, {function: handler}}, "JSON"},
		{"worker", []frame{{function: "runtime.selectgo"}, {function: handler}}, "the worker itself"},
		{"rendering below SMTP", []frame{{"github.com/mailpouch/mailpouch/mailer.(*EmailMessage).WriteTo", "/src/mailer/render.go"}, {function: "github.com/mailpouch/mailpouch/backends/smtp.(*job).load"}}, "rendering"},
		{"SMTP", []frame{{function: write}, {function: "net.(*conn).Write"}, {function: "github.com/mailpouch/mailpouch/backends/smtp.(*session).flush"}}, "SMTP"},
		{"ledger asks Redis", []frame{{function: write}, {function: goRedis}, {"github.com/mailpouch/mailpouch/tasks.(*ledger).write", "/src/tasks/ledger.go"}}, "ledger"},
		{"assist", []frame{{function: "runtime.gcDrainN"}, {function: "runtime.gcAssistAlloc1"}, {function: "encoding/json.Unmarshal"}}, "garbage collector"},
		{"collector", []frame{{function: "runtime.scanobject"}, {function: "runtime.gcBgMarkWorker"}}, "garbage collector"},
		{"scheduler", []frame{{function: "runtime.futex"}, {function: "runtime.findRunnable"}, {function: "runtime.mcall"}}, "Go's scheduler"},
		{"something else", []frame{{function: "time.Now"}, {function: "main.main"}}, "the rest"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := partOf(tt.stack); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestParts(t *testing.T) {
	function := func(id uint64, name string) *profile.Location {
		return &profile.Location{ID: id, Line: []profile.Line{{Function: &profile.Function{ID: id, Name: name}}}}
	}
	system, redis, worker := function(1, write), function(2, goRedis), function(3, handler)
	p := &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}},
		Location:   []*profile.Location{system, redis, worker},
		Function:   []*profile.Function{system.Line[0].Function, redis.Line[0].Function, worker.Line[0].Function},
		Sample: []*profile.Sample{
			{Value: []int64{1, 20}, Location: []*profile.Location{worker}},
			{Value: []int64{4, 50}, Location: []*profile.Location{system, redis, worker}},
			{Value: []int64{2, 20}, Location: []*profile.Location{redis, worker}},
			{Value: []int64{1, 10}},
		},
	}
	var data bytes.Buffer
	if err := p.Write(&data); err != nil {
		t.Fatal(err)
	}
	parts, err := Parts(data.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	want := []struct {
		name           string
		share, syscall float64
	}{{"Redis's client", 0.7, 0.5}, {"the worker itself", 0.2, 0}, {"the rest", 0.1, 0}}
	if len(parts) != len(want) {
		t.Fatalf("parts %+v", parts)
	}
	for i, w := range want {
		if got := parts[i]; got.Name != w.name || math.Abs(got.Share-w.share) > 1e-9 || math.Abs(got.Syscall-w.syscall) > 1e-9 {
			t.Errorf("part %d: %+v, want %+v", i, got, w)
		}
	}
	if _, err := Parts([]byte("no profile")); err == nil {
		t.Error("what is no profile was read")
	}
}
