package tasks

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// The content of a big attachment, body or alternative does not ride in the payload:
// asynq reads the payload of every task that it gives out, and writes those of the active
// ones to Redis anew every five seconds; and the same file often goes to thousands. It
// is a blob: stored once, under the hash of its content, and read when it is its turn.
//
//	mailpouch:{<sha256>}:blob   the content
//	mailpouch:{<sha256>}:refs   a sorted set: who needs it, and since when (ms)
//	mailpouch:blobs             a sorted set: the hashes, and when each was last handed over (ms)
//
// A blob is there before the task that needs it, and stays while anything refers to
// it. Each hand-over makes a reference of its own (task key and a random token, kept in
// the payload), so that what ends one task can never drop what another one holds. With
// the last reference gone the blob expires. A process that dies in between, or whose
// task Redis did not take, leaves a reference too many; the worker's sweep drops those
// whose task is not there. That is not done at once: asynq does not say whether Redis
// refused a task or only its answer was lost, and a blob may live too long, never too short.

const (
	blobIndex  = "mailpouch:blobs"
	blobLinger = time.Hour // how long a blob stays that nothing refers to
)

func blobKey(hash string) string { return "mailpouch:{" + hash + "}:blob" }
func refsKey(hash string) string { return "mailpouch:{" + hash + "}:refs" }

// blobRef is a member of a blob's references.
func blobRef(taskKey, token string) string { return taskKey + "#" + token }

// refTask is the key of the task that a reference is for.
func refTask(ref string) string { return ref[:max(strings.LastIndexByte(ref, '#'), 0)] }

func hashOf(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// refsOf is the references that the payload of a task holds, each with its blob's hash.
func refsOf(p wire.Meta, taskKey string) map[string][]string {
	refs := map[string][]string{}
	for _, b := range p.Blobs {
		refs[b.Hash] = []string{blobRef(taskKey, p.BlobRef)}
	}
	return refs
}

// blobError says that the content of a part of a message is lost.
type blobError struct {
	part  string
	blob  wire.Blob
	fault string
}

func (e *blobError) Error() string {
	return fmt.Sprintf("%s: its content (sha256 %s, %d octets) is %s", e.part, e.blob.Hash, e.blob.Size, e.fault)
}

// The faults of a blob.
const (
	blobMissing = "not in Redis any more"
	blobDamaged = "damaged in Redis"
)

// lost says that the content of a part of a message is lost.
func lost(p *wire.Payload, b wire.Blob, fault string) error {
	return &blobError{part: b.Name(p.Message), blob: b, fault: fault}
}

// producer enqueues tasks, and stores what does not ride in them.
type producer struct {
	*asynq.Client
	redis redis.UniversalClient
}

func newProducer(client redis.UniversalClient) *producer {
	return &producer{asynq.NewClientFromRedisClient(client), client}
}

// claimScript refers to a blob, if it is there with its whole length.
const claimScript = `
if redis.call("STRLEN", KEYS[1]) ~= tonumber(ARGV[3]) then return 0 end
redis.call("ZADD", KEYS[2], ARGV[2], ARGV[1])
redis.call("PERSIST", KEYS[1])
return 1`

// hold makes sure of the blobs of a payload for the task at taskKey, and returns the
// payload with the reference in it. Redis is first asked for them, so that the same
// file for many recipients is sent to it once.
func (c *producer) hold(ctx context.Context, p *wire.Payload, taskKey string) (*wire.Payload, error) {
	if len(p.Blobs) == 0 {
		return p, nil
	}
	held := *p
	held.BlobRef = rand.Text()[:10]
	now := time.Now().UnixMilli()
	claims := map[string]*redis.Cmd{}
	_, err := c.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for hash, refs := range refsOf(held.Meta, taskKey) {
			pipe.ZAdd(ctx, blobIndex, redis.Z{Score: float64(now), Member: hash})
			claims[hash] = pipe.Eval(ctx, claimScript, []string{blobKey(hash), refsKey(hash)}, refs[0], now, sizeOf(held.Blobs, hash))
		}
		return nil
	})
	if err != nil {
		return nil, unavailable(err)
	}
	for _, b := range held.Blobs {
		if there, _ := claims[b.Hash].Int(); there == 1 {
			continue
		}
		content := b.Of(held.Message)
		if len(content) != b.Size {
			return nil, &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRender, Err: lost(&held, b, blobMissing)}
		}
		if err := c.store(ctx, b.Hash, content, blobRef(taskKey, held.BlobRef), now); err != nil {
			return nil, err
		}
	}
	return &held, nil
}

func sizeOf(blobs []wire.Blob, hash string) int {
	return blobs[slices.IndexFunc(blobs, func(b wire.Blob) bool { return b.Hash == hash })].Size
}

// storeScript writes a blob together with its reference, so that neither is ever alone.
const storeScript = `
redis.call("SET", KEYS[1], ARGV[3])
redis.call("ZADD", KEYS[2], ARGV[2], ARGV[1])
return 1`

func (c *producer) store(ctx context.Context, hash string, content []byte, ref string, now int64) error {
	err := c.redis.Eval(ctx, storeScript, []string{blobKey(hash), refsKey(hash)}, ref, now, content).Err()
	if err != nil {
		return unavailable(err)
	}
	return nil
}

// dropScript removes references. With the last one gone the blob expires after ARGV[1]
// seconds. It returns 1 if neither blob nor references are left.
const dropScript = `
for i = 2, #ARGV do redis.call("ZREM", KEYS[2], ARGV[i]) end
if redis.call("EXISTS", KEYS[2]) == 1 then return 0 end
local ttl = redis.call("TTL", KEYS[1])
if ttl == -1 then redis.call("EXPIRE", KEYS[1], ARGV[1]) end
if ttl == -2 then return 1 end
return 0`

// dropRefs removes references, by the hashes of their blobs.
func dropRefs(ctx context.Context, client redis.UniversalClient, refs map[string][]string) error {
	if len(refs) == 0 {
		return nil
	}
	_, err := client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for hash, list := range refs {
			evalDrop(ctx, pipe, hash, list)
		}
		return nil
	})
	if err != nil {
		return unavailable(err)
	}
	return nil
}

func evalDrop(ctx context.Context, pipe redis.Pipeliner, hash string, refs []string) *redis.Cmd {
	args := make([]any, 0, 1+len(refs))
	args = append(args, int(blobLinger/time.Second))
	for _, r := range refs {
		args = append(args, r)
	}
	return pipe.Eval(ctx, dropScript, []string{blobKey(hash), refsKey(hash)}, args...)
}

// readBlobs reads the contents of a payload's blobs and checks them, in one round trip.
// What is missing or damaged is nil and has an entry in faults.
func readBlobs(ctx context.Context, client redis.UniversalClient, blobs []wire.Blob) (contents [][]byte, faults []string, err error) {
	answers := make([]*redis.StringCmd, len(blobs))
	_, err = client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, b := range blobs {
			answers[i] = pipe.Get(ctx, blobKey(b.Hash))
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, nil, unavailable(err)
	}
	contents, faults = make([][]byte, len(blobs)), make([]string, len(blobs))
	for i, b := range blobs {
		content, err := answers[i].Bytes()
		switch {
		case errors.Is(err, redis.Nil):
			faults[i] = blobMissing
		case err != nil:
			return nil, nil, unavailable(err)
		case len(content) != b.Size || hashOf(content) != b.Hash:
			faults[i] = blobDamaged
		default:
			contents[i] = content
		}
	}
	return contents, faults, nil
}
