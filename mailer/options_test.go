package mailer

import (
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestOptions_Validate(t *testing.T) {
	t.Parallel()
	now := time.Now()
	tests := []struct {
		name string
		give Options
		want string // in the error; "" is none
	}{
		{"nothing", Options{}, ""},
		{"at and in", Options{ProcessAt: now, ProcessIn: time.Second}, "exclude each other"},
		{"negative pause", Options{ProcessIn: -time.Second}, "process_in"},
		{"negative retries", Options{MaxRetry: new(-1)}, "max_retry"},
		{"no retries", Options{MaxRetry: new(0)}, ""},
		{"more retries than can be stored", Options{MaxRetry: new(math.MaxInt32)}, "max_retry"},
		{"negative retention", Options{Retention: -1}, "retention"},
		{"deadline over", Options{Deadline: now.Add(-time.Second)}, "deadline"},
		{"deadline before the due time", Options{ProcessIn: time.Hour, Deadline: now.Add(time.Minute)}, "deadline"},
		{"hash tag in the queue's name", Options{Queue: "a{b}"}, "queue"},
		{"blank queue", Options{Queue: " "}, "queue"},
		{"dot in the queue's name", Options{Queue: "marketing.bulk"}, "queue"},
		{"blank in the queue's name", Options{Queue: "with blank"}, `"with blank" cannot be the name of a queue: use letters of the English alphabet, digits, - and _`},
		{"queue of another alphabet", Options{Queue: "größe"}, "queue"},
		{"mailer with a dot", Options{Using: "eu.marketing"}, `"eu.marketing" cannot be the name of a mailer`},
		{"mailing with a blank", Options{Mailing: "spring 2026"}, `"spring 2026" cannot be the name of a mailing`},
		{"good names", Options{Queue: "Bulk-2_x", Using: "eu_2", Mailing: "spring-2026"}, ""},
		{"key", Options{IdempotencyKey: "order 7: Grüße"}, ""},
		{"longest key", Options{IdempotencyKey: strings.Repeat("x", 255)}, ""},
		{"key too long", Options{IdempotencyKey: strings.Repeat("x", 256)}, "256 octets"},
		{"newline in a key", Options{IdempotencyKey: "a\nb"}, "control character"},
		{"NUL in a key", Options{IdempotencyKey: "a\x00b"}, "control character"},
		{"C1 control in a key", Options{IdempotencyKey: "a\u0085b"}, "control character"},
		{"key of no UTF-8", Options{IdempotencyKey: "a\xff"}, "UTF-8"},
		{"blank key", Options{IdempotencyKey: " "}, "blank"},
		{"unique", Options{Unique: time.Second}, ""},
		{"unique for too short", Options{Unique: time.Millisecond}, "unique"},
		{"negative unique", Options{Unique: -time.Second}, "unique"},
		{"key and unique", Options{IdempotencyKey: "a", Unique: time.Second}, "exclude each other"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := tt.give.Validate()
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("Validate() = %v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestOptions_tags(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		give []string
		want string // in the error; "" is none
	}{
		{"none", nil, ""},
		{"good ones", []string{"invoice", "order 17", "Grüße, Ann", strings.Repeat("a", maxTag)}, ""},
		{"as many as may be", make([]string, maxTags), ""},
		{"one too many", make([]string, maxTags+1), "is one of 9, at most 8 are allowed"},
		{"too long", []string{"a", strings.Repeat("b", maxTag+1)}, "has 65 bytes, at most 64 are allowed"},
		{"empty", []string{""}, "is empty"},
		{"a blank at its end", []string{"a "}, "begins or ends with a blank"},
		{"a line break", []string{"a\nb"}, "not printable"},
		{"a tab", []string{"a\tb"}, "not printable"},
		{"a mark of direction", []string{"a\u202eb"}, "not printable"},
		{"half a letter", []string{"a\xc3"}, "UTF-8"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tags := slices.Clone(tt.give)
			for i := range tags {
				if tags[i] == "" && len(tags) > 1 {
					tags[i] = "x"
				}
			}
			err := Options{Tags: tags}.Validate()
			var of *TagError
			if tt.want == "" && err != nil || tt.want != "" && (!errors.As(err, &of) || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("Validate() = %v, want %q in a TagError", err, tt.want)
			}
		})
	}
	var name *NameError
	if err := (Options{Mailing: "spring, 2026"}).Validate(); !errors.As(err, &name) || name.What != "mailing" {
		t.Errorf("Validate() of a mailing with blanks = %v, want a NameError", err)
	}
}

// What is set counts, and of what excludes each other nothing comes from elsewhere.
func TestOptions_Or(t *testing.T) {
	t.Parallel()
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	full := Options{
		Using: "m", Queue: "q", ProcessAt: at, MaxRetry: new(3), Deadline: at.Add(time.Hour), AtMostOnce: true,
		Retention: time.Hour, Tags: []string{"a"}, Mailing: "spring", IdempotencyKey: "k",
	}
	for i := range reflect.TypeFor[Options]().NumField() {
		f := reflect.TypeFor[Options]().Field(i)
		if f.Name != "ProcessIn" && f.Name != "Unique" && reflect.ValueOf(full).Field(i).IsZero() {
			t.Errorf("%s is not in this test", f.Name)
		}
	}
	if got := (Options{}).Or(full); !reflect.DeepEqual(got, full) {
		t.Errorf("got %+v, want %+v", got, full)
	}
	own := Options{
		Using: "n", Queue: "r", ProcessIn: time.Minute, MaxRetry: new(0), Deadline: at, Retention: time.Second, Tags: []string{}, Mailing: "autumn",
		Unique: time.Hour,
	}
	want := own
	want.AtMostOnce = true
	if got := own.Or(full); !reflect.DeepEqual(got, want) || got.Validate() != nil {
		t.Errorf("got %+v, %v, want %+v", got, got.Validate(), want)
	}
	if !(Options{}).IsZero() || full.IsZero() || (Options{Tags: []string{}}).IsZero() {
		t.Error("IsZero")
	}
}

// A message that is to wait is dated to the time of sending, unless it has a date.
func TestOptions_Complete(t *testing.T) {
	t.Parallel()
	now := time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC)
	later := Options{ProcessIn: time.Hour}
	for _, tt := range []struct {
		name string
		o    Options
		give EmailMessage
		want time.Time // zero: none
	}{
		{"later", later, EmailMessage{}, now.Add(time.Hour).Truncate(time.Second)},
		{"at a time", Options{ProcessAt: now.Add(time.Minute)}, EmailMessage{}, now.Add(time.Minute).Truncate(time.Second)},
		{"at a time that is over", Options{ProcessAt: now.Add(-time.Minute)}, EmailMessage{}, now.Truncate(time.Second)},
		{"dated", later, EmailMessage{Date: now}, now},
	} {
		if got := tt.o.Complete(&tt.give, Defaults{}, now); !got.Date.Equal(tt.want) || got.MessageID == "" || tt.give.MessageID != "" {
			t.Errorf("%s: got %v, want %v", tt.name, got.Date, tt.want)
		}
	}
}
