// The reference trustless gateway, from boxo's own packages, over the blocks of some CAR files held in memory,
// or, after "-indexed", of one CARv2 file that is read by its own index. After "-router" and a JSON file that lists
// provider records by CID, it is the reference delegated router over those, with JSON answers alone after "-whole".
// It prints its URL when it is ready, and ends when standard input does.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/gateway"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/ipld/go-car/v2"
	carstore "github.com/ipld/go-car/v2/blockstore"
	_ "github.com/multiformats/go-multihash/register/all"
)

func load(store blockstore.Blockstore, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	reader, err := car.NewBlockReader(file)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for {
		block, err := reader.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := store.Put(context.Background(), block); err != nil {
			return err
		}
	}
}

// listen prints the URL, and serves until standard input ends.
func listen(handler http.Handler) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("http://%s\n", listener.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	log.Fatal(http.Serve(listener, handler))
}

func main() {
	if len(os.Args) >= 3 && os.Args[1] == "-router" {
		listen(router(os.Args[2], os.Args[3:]))
	}
	// Whole files for clients that verify nothing; without it, blocks and CARs only.
	config := gateway.Config{}
	if len(os.Args) > 1 && os.Args[1] == "-deserialized" {
		config.DeserializedResponses = true
		os.Args = append(os.Args[:1], os.Args[2:]...)
	}
	store := blockstore.NewIdStore(blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore())))
	if len(os.Args) == 3 && os.Args[1] == "-indexed" {
		file, err := carstore.OpenReadOnly(os.Args[2])
		if err != nil {
			log.Fatal(err)
		}
		store = blockstore.NewIdStore(file)
	} else if len(os.Args) == 4 && os.Args[1] == "-wrap" {
		if err := car.WrapV1File(os.Args[2], os.Args[3]); err != nil {
			log.Fatal(err)
		}
		return
	} else {
		for _, path := range os.Args[1:] {
			if err := load(store, path); err != nil {
				log.Fatal(err)
			}
		}
	}
	backend, err := gateway.NewBlocksBackend(blockservice.New(store, offline.Exchange(store)))
	if err != nil {
		log.Fatal(err)
	}
	listen(gateway.NewHandler(config, backend))
}
