package main

import (
	"context"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/ipfs/boxo/ipns"
	"github.com/ipfs/boxo/routing/http/server"
	"github.com/ipfs/boxo/routing/http/types"
	"github.com/ipfs/boxo/routing/http/types/iter"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/routing"
)

// records knows the providers of some CIDs, and nothing else.
type records map[string][]json.RawMessage

func (known records) FindProviders(_ context.Context, key cid.Cid, _ int) (iter.ResultIter[types.Record], error) {
	var found []iter.Result[types.Record]
	// Read anew each time: boxo's filters write into the records.
	for _, text := range known[key.String()] {
		record, err := parse(text)
		if err != nil {
			return nil, err
		}
		found = append(found, iter.Result[types.Record]{Val: record})
	}
	if found == nil {
		return nil, routing.ErrNotFound
	}
	return iter.FromSlice(found), nil
}

func parse(text json.RawMessage) (types.Record, error) {
	unknown := &types.UnknownRecord{}
	if err := json.Unmarshal(text, unknown); err != nil || unknown.Schema != types.SchemaPeer {
		return unknown, err
	}
	record := &types.PeerRecord{}
	return record, json.Unmarshal(text, record)
}

func (records) ProvideBitswap(context.Context, *server.BitswapWriteProvideRequest) (time.Duration, error) {
	return 0, routing.ErrNotSupported
}

func (records) FindPeers(context.Context, peer.ID, int) (iter.ResultIter[*types.PeerRecord], error) {
	return nil, routing.ErrNotSupported
}

func (records) GetIPNS(context.Context, ipns.Name) (*ipns.Record, error) {
	return nil, routing.ErrNotSupported
}

func (records) PutIPNS(context.Context, ipns.Name, *ipns.Record) error {
	return routing.ErrNotSupported
}

func (records) GetClosestPeers(context.Context, cid.Cid) (iter.ResultIter[*types.PeerRecord], error) {
	return nil, routing.ErrNotSupported
}

func router(path string, options []string) http.Handler {
	text, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	var known records
	if err := json.Unmarshal(text, &known); err != nil {
		log.Fatal(err)
	}
	if slices.Contains(options, "-whole") {
		return server.Handler(known, server.WithStreamingResultsDisabled())
	}
	return server.Handler(known)
}
