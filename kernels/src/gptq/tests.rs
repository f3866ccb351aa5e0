use super::*;

/// The loop in libtorch's operations, column by column: the definition.
fn plain(block: &Tensor, factor: &Tensor, grid: &Grid<'_>, group_of: &[usize]) -> RoundedBlock {
    let work = block.copy();
    let (mut codes, mut values, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for (column, &group) in group_of.iter().enumerate() {
        let column = column as i64;
        let of_group = |tensor: &Tensor| tensor.select(1, group as i64);
        let (weight, scale) = (work.select(1, column), of_group(grid.scale));
        let zero = grid.zero.map_or_else(|| scale.zeros_like(), of_group);
        let (lowest, highest) = (f64::from(grid.lowest), f64::from(grid.highest));
        let code = match grid.zero_point {
            ZeroPoint::BeforeRounding => (&weight / &scale + &zero).clamp(lowest, highest).round(),
            ZeroPoint::AfterRounding => ((&weight / &scale).round() + &zero).clamp(lowest, highest),
        };
        let value = ((&code - &zero) * &scale).to_kind(grid.kind).to_kind(Kind::Float);
        let row = factor.get(column).narrow(0, column, group_of.len() as i64 - column);
        let error = (&weight - &value) / row.get(0);
        let mut rest = work.narrow(1, column, row.size()[0]);
        let _ = rest.f_sub_(&error.unsqueeze(1).matmul(&row.unsqueeze(0))).unwrap();
        codes.push((code - lowest).to_kind(Kind::Uint8));
        values.push(value);
        errors.push(error);
    }
    RoundedBlock {
        codes: Tensor::stack(&codes, 1),
        values: Tensor::stack(&values, 1),
        errors: Tensor::stack(&errors, 1),
    }
}

fn random(rows: i64, columns: i64) -> Tensor {
    Tensor::randn([rows, columns], (Kind::Float, Device::Cpu))
}

/// An upper triangle like that of an inverse of second moments.
fn factor(columns: i64) -> Tensor {
    random(columns, columns).triu(1) * 0.2 + Tensor::eye(columns, (Kind::Float, Device::Cpu)) * 1.5
}

#[test]
fn codes_values_and_errors_are_those_of_the_plain_loop_to_the_bit() {
    let _guard = tch::no_grad_guard();
    tch::manual_seed(11);
    for (rows, columns, group) in [(1, 1, 1), (5, 7, 3), (16, 128, 32), (33, 128, 128), (100, 60, 20)] {
        let (block, factor) = (random(rows, columns), factor(columns));
        let groups = (columns + group - 1) / group;
        let scale = Tensor::rand([rows, groups], (Kind::Float, Device::Cpu)) * 0.3 + 0.05;
        let group_of: Vec<usize> =
            (0..columns).map(|column| (column * 7 % columns / group) as usize).collect();
        for (lowest, highest) in [(-2, 1), (-8, 7), (0, 15), (-128, 127)] {
            let zeros = Tensor::randint_low(
                i64::from(lowest),
                i64::from(highest) + 1,
                [rows, groups],
                (Kind::Float, Device::Cpu),
            );
            for zero in [None, Some(&zeros)] {
                for zero_point in [ZeroPoint::BeforeRounding, ZeroPoint::AfterRounding] {
                    for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
                        let scale = scale.to_kind(kind).to_kind(Kind::Float);
                        let grid = Grid { scale: &scale, zero, zero_point, lowest, highest, kind };
                        let found = round_block(&block, &factor, &grid, &group_of).unwrap();
                        let expected = plain(&block, &factor, &grid, &group_of);
                        let case = format!("{rows}x{columns} g{group} {lowest} {zero_point:?} {kind:?}");
                        assert!(found.codes.equal(&expected.codes), "{case}");
                        assert!(found.values.equal(&expected.values), "{case}");
                        assert!(found.errors.equal(&expected.errors), "{case}");
                    }
                }
            }
        }
    }
}

#[test]
fn every_set_of_instructions_computes_the_same_bits() {
    let _guard = tch::no_grad_guard();
    tch::manual_seed(12);
    let (rows, columns) = (16, 96);
    let (block, factor, scale) = (random(rows, columns), factor(columns), random(rows, 3).abs() + 0.1);
    let group_of: Vec<usize> = (0..columns as usize).map(|column| column / 32).collect();
    let with = |isa: Isa| {
        let task = strip::Task {
            factor: elements(&factor),
            scale: elements(&scale),
            zero: None,
            groups: 3,
            group_of: &group_of,
            zero_point: ZeroPoint::BeforeRounding,
            lowest: -8.0,
            highest: 7.0,
            kind: Kind::BFloat16,
            isa,
        };
        let count = block.numel();
        let (mut codes, mut values, mut errors) = (vec![0; count], vec![0.0; count], vec![0.0; count]);
        task.round(Strip {
            first_row: 0,
            weights: elements(&block),
            codes: &mut codes,
            values: &mut values,
            errors: &mut errors,
        });
        (codes, values, errors)
    };
    for isa in Isa::all_of_this_machine() {
        assert_eq!(with(isa), with(Isa::Portable), "{isa:?}");
    }
}

#[test]
fn a_triangle_without_neighbours_rounds_to_nearest() {
    let block = Tensor::from_slice(&[0.26_f32, -0.74, 9.0, 0.5]).view([1, 4]);
    let one = Tensor::ones([1, 1], (Kind::Float, Device::Cpu));
    let grid = Grid {
        scale: &(&one * 0.5),
        zero: None,
        zero_point: ZeroPoint::BeforeRounding,
        lowest: -8,
        highest: 7,
        kind: Kind::Float,
    };
    let eye = Tensor::eye(4, (Kind::Float, Device::Cpu));
    let found = round_block(&block, &eye, &grid, &[0; 4]).unwrap();
    assert_eq!(Vec::<f32>::try_from(found.values.view([-1])).unwrap(), [0.5, -0.5, 3.5, 0.5]);
    assert_eq!(Vec::<u8>::try_from(found.codes.view([-1])).unwrap(), [9, 7, 15, 9]);
}
