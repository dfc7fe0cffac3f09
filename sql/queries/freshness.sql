-- name: WorkerFreshnessList :many
-- WorkerFreshnessList returns every loop with its verdict, in the order in which
-- they are shown.
SELECT freshness.*
FROM loop_contract
-- The outer join changes no row: it tells sqlc that the view's columns may be NULL.
LEFT JOIN worker_freshness AS freshness ON freshness.loop = loop_contract.loop
ORDER BY loop_contract.sort_order, loop_contract.loop;
