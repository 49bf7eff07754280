package asynqbatch

import (
	"context"
	"encoding/binary"
	"errors"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// ServedQueues returns the queues that asynq servers of any program serve which have shown signs of life lately. It
// reads what asynq's inspector reads, without the tasks that they have in hand.
func ServedQueues(ctx context.Context, client redis.UniversalClient) (map[string]bool, error) {
	alive := &redis.ZRangeBy{Min: strconv.FormatInt(time.Now().Unix(), 10), Max: "+inf"}
	keys, err := client.ZRangeByScore(ctx, "asynq:servers", alive).Result()
	if err != nil || len(keys) == 0 {
		return nil, err
	}
	records := make([]*redis.StringCmd, len(keys))
	_, err = client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, key := range keys {
			records[i] = pipe.Get(ctx, key)
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	served := map[string]bool{}
	for _, record := range records {
		if data, err := record.Bytes(); err == nil {
			for _, entry := range fields(data, serverQueues) {
				for _, name := range fields(entry, mapKey) {
					served[string(name)] = true
				}
			}
		}
	}
	return served, nil
}

// The numbers of fields of asynq's protocol buffer of a server, and of an entry of any map.
const (
	serverQueues = 5 // a map
	mapKey       = 1
)

// fields returns the values of the fields with a number in a protocol buffer, of those that are bytes.
func fields(data []byte, number uint64) [][]byte {
	var values [][]byte
	for len(data) > 0 {
		tag, n := binary.Uvarint(data)
		if n <= 0 {
			return values
		}
		value, m := binary.Uvarint(data[n:])
		if m <= 0 {
			return values
		}
		data = data[n+m:]
		switch tag & 7 {
		case 0: // a number
		case 2: // as many bytes
			if value > uint64(len(data)) {
				return values
			}
			if tag>>3 == number {
				values = append(values, data[:value])
			}
			data = data[value:]
		default:
			return values
		}
	}
	return values
}
